"""`python -m benchmarks [names]`: run benchmarks, all or some, into results/benchmarks.json."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import record, runner
from skyweave.errors import UserError


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=", ".join(runner.registered()))
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    options = parser.parse_args(arguments)
    try:
        runner.run(options.names, options.results)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
