"""The files that are generated from the settings models.

`python -m skyweave.config [folder]` writes them: the JSON schema, the reference page, and the
configuration file itself with its values kept and every comment made anew.
"""

import json
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from skyweave.config.load import load
from skyweave.config.models import SECTIONS, Config
from skyweave.config.scans import member_settings
from skyweave.files import write_text

_HEAD = """\
# The quick study: every rule of the workflow on a small scale.
# Values are yours to change; `make config-docs` renews the comments and adds missing keys.
# yaml-language-server: $schema=schema.json
"""

_WIDTH = 96


def generate(folder: Path) -> dict[Path, str]:
    """Text of each generated file in `folder`, from the models and the values in config.yaml."""
    return {
        folder / "schema.json": json.dumps(Config.model_json_schema(), indent=2) + "\n",
        folder / "config.yaml": commented(load(folder / "config.yaml")),
        folder / "README.md": reference(),
    }


def write(folder: Path) -> None:
    """Write the generated files."""
    for path, text in generate(folder).items():
        write_text(path, text)


def commented(config: Config) -> str:
    """YAML of a configuration, all defaults spelled out, each key with its description.

    The runs that a scan makes are left to it.
    """
    made = member_settings(config.scans)
    runs = {name: run for name, run in config.runs.items() if name not in made}
    written = config.model_copy(update={"runs": runs})
    return _HEAD + "\n" + "\n".join(_yaml_lines(written, 0)) + "\n"


def _yaml_lines(section: BaseModel, depth: int) -> Iterator[str]:
    pad = "  " * depth
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if depth == 0 and name != "seed":
            yield ""
        if isinstance(value, BaseModel):
            yield from _commented_line(f"{pad}{name}:", field.description)
            yield from _yaml_lines(value, depth + 1)
        elif isinstance(value, Mapping):
            empty = "" if value else " {}"
            yield from _commented_line(f"{pad}{name}:{empty}", field.description)
            for key, entry in value.items():
                if isinstance(entry, BaseModel):
                    yield f"{pad}  {key}:"
                    yield from _yaml_lines(entry, depth + 2)
                else:
                    yield f"{pad}  {key}: {_scalar(entry)}"
        else:
            yield from _commented_line(f"{pad}{name}: {_scalar(value)}", field.description)


def _commented_line(line: str, comment: str | None) -> Iterator[str]:
    """The line with its comment behind it, or above it where that is too long."""
    if not comment:
        yield line
    elif len(line) + len(comment) + 4 <= _WIDTH:
        yield f"{line}  # {comment}"
    else:
        pad = " " * (len(line) - len(line.lstrip()))
        yield from (f"{pad}# {part}" for part in textwrap.wrap(comment, _WIDTH - len(pad) - 2))
        yield line


def _scalar(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def reference() -> str:
    """The reference page, Markdown: a table for each section."""
    lines = [
        "# Settings",
        "",
        "`config/config.yaml` is checked against these sections before any job starts; a mistake",
        "stops with one line that names the key, what was expected and what was found.",
        "An editor that reads `config/schema.json` completes and checks the file as you type.",
        "This page is made by `make config-docs`.",
    ]
    for model in SECTIONS:
        lines += ["", f"## {model.__name__}", "", (model.__doc__ or "").strip().splitlines()[0]]
        lines += ["", "| key | type | default | meaning |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            meaning = (field.description or "").replace("|", "\\|")
            lines.append(f"| `{name}` | {_type(field)} | {_default(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _type(field: FieldInfo) -> str:
    return _type_name(field.annotation).replace("|", "\\|")


def _type_name(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " | ".join(f"`{_scalar(choice)}`" for choice in arguments)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_name(a) for a in arguments if a is not type(None))
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"name: {_type_name(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    names = {"str": "text", "int": "integer", "float": "number", "bool": "true/false", "Any": "any"}
    return names.get(kind.__name__, kind.__name__)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see there"
    if isinstance(value, Mapping) and any(isinstance(one, BaseModel) for one in value.values()):
        return f"one, `{next(iter(value))}`"
    return "none" if value is None else f"`{_scalar(value)}`"
