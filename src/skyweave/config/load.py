"""Reading a configuration: every mistake ends in one line that names the key."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from skyweave.config.base import Settings
from skyweave.config.galaxies import ImagesDataset, SersicDataset
from skyweave.config.imported import ImportedDataset
from skyweave.config.inpainting import InpaintingRun
from skyweave.config.models import Config
from skyweave.config.runs import ForegroundsRun
from skyweave.config.scans import member_settings
from skyweave.errors import UserError


def load(path: str | Path) -> Config:
    """Read and check a YAML configuration file.

    Raises `UserError` for a missing file, broken YAML or an impossible setting.
    """
    return parse(read_yaml(path))


def read_yaml(path: str | Path) -> Any:
    """Values of a YAML file; raises `UserError` where there is none."""
    try:
        with open(path, encoding="utf-8") as handle:
            return yaml.safe_load(handle)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(path, "a configuration file", "none") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(path, "valid YAML", " ".join(str(error).split())) from None


def parse(values: Any) -> Config:
    """Check a mapping of settings; raises `UserError` at the first mistake."""
    if not isinstance(values, Mapping):
        raise UserError("config", "a mapping with `datasets` and `runs`", repr(values))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        said = _one_line(_telling(error.errors(include_url=False)))
        raise _as_scanned(said, values.get("scans")) from None


def _telling(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first error; for a mapping where a name or a list would also do, what is wrong in it."""
    first = errors[0]
    other = first["type"] in ("literal_error", "tuple_type")
    return errors[1] if other and isinstance(first["input"], Mapping) and errors[1:] else first


# In our words, what pydantic says in its own.
_EXPECTED = {
    "model_type": "a section with keys and values",
    "model_attributes_type": "a section with keys and values",
    "dict_type": "a section with keys and values",
    "tuple_type": "a list, such as [a, b]",
    "too_short": "at least 1 entry",
    "string_pattern_mismatch": "a name of letters, digits, - and _, a letter first",
}

# What pydantic puts into a location that the user did not write: tags and union branches.
_KINDS = {
    "datasets": ("kind", ("cmb", "sky", "imported", "sersic", "images")),
    "runs": (
        "task",
        (
            *("reconstruction", "decomposition", "foregrounds", "inpainting"),
            *("generation", "denoising"),
        ),
    ),
}
_TAGS = {"Cosmology", "constrained-str", "[key]"}


def _one_line(error: Mapping[str, Any]) -> UserError:
    """Say a pydantic error as key, expected and found."""
    parts = [str(part) for part in error["loc"]]
    key, kinds = _KINDS.get(parts[0] if parts else "", ("", ()))
    # datasets.NAME.KIND.… : the discriminator's tag stands behind the name.
    if len(parts) > 2 and parts[2] in kinds:
        del parts[2]
    parts = [part for part in parts if part not in _TAGS]
    where = ".".join(part for part in parts if not part.startswith(("literal[", "function-after[")))
    kind, found = error["type"], _short(error["input"])
    if kind == "extra_forbidden":
        return UserError(where, "a known setting", f"unknown key {parts[-1]!r}")
    if kind == "missing":
        return UserError(where, "a value", "none")
    if kind == "value_error":
        text = str(error["ctx"]["error"])
        inner, separator, rest = text.partition(": expected ")
        if separator:
            where = f"{where}.{inner}" if where else inner
            text = "expected " + rest
        expected, _, found = text.removeprefix("expected ").partition(", found ")
        return UserError(where, expected, found)
    if kind.startswith("union_tag"):
        found = error["input"].get(key, "none") if isinstance(error["input"], Mapping) else found
        return UserError(f"{where}.{key}", " or ".join(kinds), found)
    if kind in _EXPECTED:
        return UserError(where, _EXPECTED[kind], found)
    expected = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return UserError(where, expected[:1].lower() + expected[1:], found)


def _as_scanned(error: UserError, scans: Any) -> UserError:
    """The error with its place in the scan that made the run where it is, if one did."""
    first, _, rest = str(error.where).partition(".")
    run, _, place = rest.partition(".")
    scan, settings = member_settings(scans).get(run, ("", {}))
    if scan and first == "runs" and not place:
        return UserError(f"scans.{scan}", error.expected, error.found)
    for key in settings if first == "runs" else ():
        if f"{place}.".startswith(f"{key}.") or f"{key}.".startswith(f"{place}."):
            where = f"scans.{scan}.settings.{key}"
            return UserError(where, error.expected, error.found)
    return error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def require_files(config: Config) -> None:
    """Check that the user's own files are there; raises `UserError` naming the key."""
    for name, dataset in config.datasets.items():
        sections: dict[str, Settings]
        if isinstance(dataset, ImportedDataset):
            for path in dataset.paths:
                _require(f"datasets.{name}.path", path)
            continue
        if isinstance(dataset, ImagesDataset):
            own = dataset.path
            if own is not None and not Path(own).exists():
                raise UserError(
                    f"datasets.{name}.path", "a file or a folder", f"nothing at {own!r}"
                )
            continue
        if isinstance(dataset, SersicDataset):
            continue
        if dataset.kind == "sky":
            sections = {"map": dataset.map, "sources": dataset.sources}
        else:
            sections = {f"channels.{each}": channel for each, channel in dataset.channels.items()}
            sections["spectra"] = dataset.spectra
        for section, settings in sections.items():
            for key in ("path", "tau_path", "beam_path", "hits_path"):
                _require(f"datasets.{name}.{section}.{key}", getattr(settings, key, None))
    for name, run in config.runs.items():
        if isinstance(run, InpaintingRun):
            _require(f"runs.{name}.holes.path", run.holes.path)
        if isinstance(run, ForegroundsRun) and run.full_sky is not None:
            _require(f"runs.{name}.full_sky.template.path", run.full_sky.template.path)
    for name, prediction in config.predictions.items():
        _require(f"predictions.{name}.path", prediction.path)
        _require(f"predictions.{name}.mask", prediction.mask)


def _require(where: str, path: str | None) -> None:
    if path is not None and not Path(path).is_file():
        raise UserError(where, "a file", f"nothing at {path!r}")
