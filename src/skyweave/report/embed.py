"""Putting files into one page: images, tables and downloads as data URIs."""

import base64
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from skyweave.report import read

_MIME = {".svg": "image/svg+xml", ".png": "image/png"}
_ROWS = 12  # shown in the page; the download holds all
_LARGE = 50_000  # bytes; above, a download is compressed


@dataclass(frozen=True)
class Table:
    """The first rows of a CSV as text, and the whole of it as a download."""

    columns: list[str]
    rows: list[list[str]]
    total: int
    name: str
    uri: str


@dataclass(frozen=True)
class Figure:
    """A figure with its words, its image as a data URI and its table."""

    anchor: str
    title: str
    caption: str
    alt: str
    image: str
    table: Table


def data_uri(content: bytes, mime: str) -> str:
    """Bytes as a data URI."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def figures(folder: Path, prefix: str) -> list[Figure]:
    """All figures that figures.json in `folder` names; `prefix` makes anchors and names unique."""
    return [_figure(folder, prefix, entry) for entry in read.figures(folder / "figures.json")]


def _figure(folder: Path, prefix: str, entry: dict[str, Any]) -> Figure:
    image = folder / entry["file"]
    return Figure(
        anchor=f"{prefix}-{image.stem}",
        title=entry["title"],
        caption=entry["caption"],
        alt=entry["alt"],
        image=data_uri(image.read_bytes(), _MIME[image.suffix]),
        table=table(folder / entry["table"], prefix),
    )


def table(path: Path, prefix: str) -> Table:
    """The CSV at `path`; a large one is downloaded as .csv.gz."""
    frame = read.table(path)
    content, name, mime = path.read_bytes(), f"{prefix}-{path.name}", "text/csv"
    if len(content) > _LARGE:
        # mtime: the time of compression would change the bytes.
        content, name, mime = gzip.compress(content, mtime=0), f"{name}.gz", "application/gzip"
    shown = frame.head(_ROWS)
    return Table(
        columns=[str(column) for column in frame],
        rows=[[number(value) for value in row] for row in shown.itertuples(index=False)],
        total=len(frame),
        name=name,
        uri=data_uri(content, mime),
    )


def number(value: Any) -> str:
    """A number with five significant digits, a dash for none, and words as they are."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.5g}".replace("-", "−")
    return str(value)
