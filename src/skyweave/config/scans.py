"""Scans over settings: a run with each of some values, every one a run of its own."""

import json
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from skyweave.config.base import Name, Settings, distinct


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a value that is given twice; values may be lists."""
    distinct(tuple(json.dumps(value, default=str) for value in values))
    return values


def _by_name(settings: dict[str, Any]) -> dict[str, Any]:
    """In one order, however they are written: members are numbered by it."""
    return dict(sorted(settings.items()))


Values = Annotated[tuple[Any, ...], Field(min_length=1), AfterValidator(_each_once)]


class Scan(Settings):
    """A run with other settings, value by value: runs `NAME_1`, `NAME_2`, … and one table."""

    run: Name = Field(description="The run whose settings are changed; it stays a run itself.")
    settings: Annotated[dict[str, Values], AfterValidator(_by_name)] = Field(
        min_length=1,
        description="Lists of values by setting, such as `network.width: [0.5, 1]`; where a value "
        "is a list itself, a list of lists.",
    )
    combine: Literal["grid", "zip"] = Field(
        "grid",
        description="Each value with each of the other settings', the last by its name changing "
        "fastest, or the first with the first, the second with the second, …",
    )
    fields: Annotated[tuple[str, ...], AfterValidator(distinct)] = Field(
        (), description="Fields whose scores the table holds; all if empty."
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for key in self.settings:
            inside = next((other for other in self.settings if other.startswith(f"{key}.")), None)
            if inside is not None:
                raise ValueError(f"settings: expected none inside of {key!r}, found {inside!r}")
        lengths = [len(values) for values in self.settings.values()]
        if self.combine == "zip" and len(set(lengths)) > 1:
            raise ValueError(
                "settings: expected lists of one length with `combine: zip`, "
                f"found {', '.join(map(str, lengths))}"
            )
        return self

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """Each member's values by setting, in the order of the members' numbers."""
        lists = self.settings.values()
        rows = product(*lists) if self.combine == "grid" else zip(*lists, strict=True)
        return [dict(zip(self.settings, row, strict=True)) for row in rows]


def member_settings(scans: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """Each member's scan and values by setting; scans that are none are left out.

    Of settings as a user writes them, or of read ones.
    """
    return {
        f"{name}_{number}": (name, values)
        for name, scan in _readable(scans)
        for number, values in enumerate(scan.combinations, start=1)
    }


def expanded(values: Any) -> Any:
    """A study's settings, as written, with its scans' members among its runs.

    A run that is there under a member's name stays as it is. What is wrong with a scan by itself is
    left for the models to say; raises `ValueError` for one without its run.
    """
    scans = dict(_readable(values.get("scans"))) if isinstance(values, Mapping) else {}
    runs = values.get("runs") or {} if scans else {}
    if not scans or not isinstance(runs, Mapping):
        return values
    runs = dict(runs)
    for name, scan in scans.items():
        if scan.run not in runs:
            known = ", ".join(sorted(map(str, runs))) or "there are none"
            raise ValueError(f"scans.{name}.run: expected one of {known}, found {scan.run!r}")
        if isinstance(runs[scan.run], Mapping):
            for number, settings in enumerate(scan.combinations, start=1):
                member = with_settings(runs[scan.run], settings, f"scans.{name}.settings")
                runs.setdefault(f"{name}_{number}", member)
    return {**values, "runs": runs}


def with_settings(section: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> dict:
    """A copy of a section with other values of some settings, which are named by dotted keys.

    Raises `ValueError`, naming the setting in `where`, for one inside of what is no section.
    """
    for key, value in settings.items():
        try:
            section = _with_value(section, key.split("."), value)
        except TypeError:
            raise ValueError(
                f"{where}.{key}: expected a known setting, found unknown key {key!r}"
            ) from None
    return dict(section)


def setting(section: Mapping[str, Any], key: str) -> Any:
    """Value of a setting that a dotted key names."""
    value: Any = section
    for part in key.split("."):
        value = value[part]
    return value


def _with_value(section: Any, path: list[str], value: Any) -> dict:
    first, *rest = path
    section = {} if section is None else section
    if not isinstance(section, Mapping):
        raise TypeError(first)
    return {**section, first: _with_value(section.get(first), rest, value) if rest else value}


def _readable(scans: Any) -> Iterator[tuple[str, Scan]]:
    """The scans that are written as scans should be."""
    for name, scan in scans.items() if isinstance(scans, Mapping) else ():
        try:
            yield str(name), scan if isinstance(scan, Scan) else Scan.model_validate(scan)
        except ValidationError:
            continue
