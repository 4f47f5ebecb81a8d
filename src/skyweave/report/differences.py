"""How the settings of one dataset differ from those of another, in words."""

from collections.abc import Mapping
from typing import Any

from skyweave.config import Cosmology
from skyweave.simulation.cosmologies import parameters_of

#: What does not change a realization, and what has words of its own.
_UNCOUNTED = {
    *("realizations", "shard_size", "split", "fields", "points", "cosmology"),
    # How classical methods estimate the maps, not the maps.
    "estimates",
}

#: A setting in words, by its name; {} is its value.
_WORDS = {
    "noise_uk_arcmin": "noise {} µK-arcmin",
    "beam_arcmin": "beam {}′",
    "beam_hfi_ghz": "beam of HFI {} GHz",
    "foreground_dl_80": "foregrounds of {} µK² at ell 80",
    "foreground_slope": "foregrounds' slope {}",
    "knee_ell": "knee at ell {}",
    "knee_ell_pol": "polarization's knee at ell {}",
    "margin_deg": "cut out of an area {}° wider on each side",
    "oversample": "pixels {} times finer on the way",
    "sky": "{} sky",
    "null_fraction": "share of null maps {}",
    "rotation_deg": "rotation by {}°",
    "rotation_amplitude": "rotation by a field of {} rad²",
}


def difference(trained: Mapping[str, Any], tested: Mapping[str, Any]) -> str:
    """What differs in the settings of `tested` from those of `trained`, both dumped by the models.

    How many realizations there are, in which files and parts, does not count.
    """
    if trained.get("kind") != tested.get("kind"):
        return f"dataset of kind {tested.get('kind')}"
    before, after = _flat(trained), _flat(tested)
    words = [
        _words(key, after[key])
        for key in after
        if key in before and before[key] != after[key] and not _UNCOUNTED & set(key)
    ]
    channels = tested.get("channels", {})
    if set(channels) != set(trained.get("channels", {})):
        words.append(f"channels {', '.join(channels)}")
    words += _cosmology(trained.get("spectra", {}), tested.get("spectra", {}))
    return ", ".join(words) or "nothing: other realizations"


def _words(key: tuple[str, ...], value: Any) -> str:
    """One setting in words."""
    if key == ("spectra", "vary"):
        return _variation(value)
    if key == ("grid", "margin_deg") and not value:
        return "periodic"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    channel = f"channel {key[1]}: " if key[0] == "channels" and key[1] != "obs" else ""
    return channel + _WORDS.get(key[-1], key[-1].replace("_", " ") + " {}").format(text)


def _variation(vary: Mapping[str, Any]) -> str:
    """Which parameters vary, or the value of what has a single one."""
    words = [
        f"{name} {values[0]:g}"
        if isinstance(values, list) and len(values) == 1
        else f"{name} varied"
        for name, values in vary.items()
    ]
    return ", ".join(words) or "one cosmology"


def _flat(settings: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Settings by their path; what varies and the cosmology as a whole."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and key not in ("vary", "cosmology", "split"):
            found |= {(key, *path): one for path, one in _flat(value).items()}
        else:
            found[(key,)] = value
    return found


def _cosmology(trained: Mapping[str, Any], tested: Mapping[str, Any]) -> list[str]:
    """In which parameters two cosmologies differ; a named one is called by its name."""
    before, after = trained.get("cosmology"), tested.get("cosmology")
    if before is None or after is None or before == after:
        return []
    if isinstance(after, str):
        return [f"cosmology {after}"]
    old, new = _parameters(before), _parameters(after)
    return [f"{name} {value}" for name, value in new.items() if value != old[name]]


def _parameters(cosmology: str | Mapping[str, Any]) -> dict[str, Any]:
    return parameters_of(
        cosmology if isinstance(cosmology, str) else Cosmology(**cosmology)
    ).model_dump()
