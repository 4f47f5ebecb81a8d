"""`python -m benchmarks.page`: docs/benchmarks.md from results/benchmarks.json."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import record
from skyweave.errors import UserError
from skyweave.files import write_text

PAGE = Path("docs/benchmarks.md")

_HEAD = """\
# Benchmarks

Measured by `python -m benchmarks`; this page is made of its results by `python -m benchmarks.page`.
The ratio says how many times faster skyweave is than the peer. A benchmark runs alone, in a process
of its own; its two sides take turns, and the numbers are medians of their blocks.
"""


def page(entries: Iterable[Mapping[str, Any]]) -> str:
    """The page, Markdown: a table, what was run for each benchmark, and on which machine."""
    entries = list(entries)
    lines = [_HEAD, "| benchmark | ours | peer | ratio | unit |", "|---|--:|--:|--:|---|"]
    for each in entries:
        numbers = (_number(each[key]) for key in ("ours", "peer", "ratio"))
        cells = (f"[{each['name']}](#{each['name']})", *numbers, each["unit"])
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    lines += ["", "## What was run"]
    commands: dict[str, str] = {}
    for each in entries:
        parts = [f"### {each['name']}", each.get("note", "")]
        if "n" in each:
            parts.append(f"Median of {each['n']} blocks.")
        command = each.get("peer_command", "").rstrip()
        if command in commands:
            parts.append(f"The peer: the code under {commands[command]}.")
        elif command:
            parts += ["The peer:", f"```python\n{command}\n```"]
            commands[command] = each["name"]
        lines += ["", "\n\n".join(filter(None, parts))]
    lines += ["", "## Machine", ""]
    machines: dict[str, list[str]] = {}
    for each in entries:
        machines.setdefault(each["machine"], []).append(each["name"])
    for machine, names in machines.items():
        of = "" if len(machines) == 1 else f" ({', '.join(names)})"
        lines.append(f"- {machine}{of}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{float(f'{value:.3g}'):.12g}"


def main(arguments: list[str]) -> None:
    """Parse the command line and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    try:
        write_text(options.page, page(record.read(options.results)))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
