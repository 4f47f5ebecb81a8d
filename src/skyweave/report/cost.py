"""`python -m skyweave.report.cost [results]`: time and memory of the jobs of a study, by rule."""

import sys
from pathlib import Path

import pandas as pd

from skyweave.errors import UserError


def cost(results: Path) -> pd.DataFrame:
    """Jobs, seconds (sum and longest) and most memory (MB) of each rule, from its benchmark files.

    Raises `UserError` when there are none.
    """
    folder = results / "benchmarks"
    rows = [
        pd.read_csv(path, sep="\t", na_values="-").assign(
            rule=path.relative_to(folder).with_suffix("").parts[0]
        )
        for path in sorted(folder.rglob("*.tsv"))
    ]
    if not rows:
        raise UserError(folder, "benchmark files of a study that ran", "none")
    jobs = pd.concat(rows).groupby("rule", sort=False)
    table = jobs.agg(
        jobs=("s", "size"),
        seconds=("s", "sum"),
        longest_s=("s", "max"),
        cpu_s=("cpu_time", "sum"),
        memory_mb=("max_rss", "max"),
    )
    return table.sort_values("seconds", ascending=False)


if __name__ == "__main__":
    try:
        table = cost(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
    except UserError as error:
        sys.exit(str(error))
    print(table.round(1).to_string())
    print(f"\nlargest job {table.memory_mb.max():.0f} MB, all jobs {table.seconds.sum():.0f} s")
