"""Writing figures.json and the tables beside the figures."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from skyweave.files import write_text
from skyweave.statistics.tables import write_table


@dataclass(frozen=True)
class Drawn:
    """One figure: its file, words, and the rows that were drawn."""

    file: str
    title: str
    caption: str
    alt: str
    rows: pd.DataFrame

    @property
    def table(self) -> str:
        """Name of the table beside the figure."""
        return f"{Path(self.file).stem}.csv"


def write(folder: Path, section: str, drawn: list[Drawn]) -> None:
    """Write each figure's table, then figures.json, into `folder`."""
    entries = []
    for figure in drawn:
        write_table(folder / figure.table, figure.rows)
        entry = {key: getattr(figure, key) for key in ("file", "title", "caption", "alt", "table")}
        entries.append(entry | {"section": section})
    write_text(folder / "figures.json", json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
