"""How every script runs: output to the rule's log, and a user's mistake said in one line."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

# An environment that Snakemake makes by itself holds what skyweave needs, not skyweave.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from skyweave.errors import Unfinished, UserError


@contextmanager
def job(log: str) -> Iterator[TextIO]:
    """Send stdout and stderr to the file `log`; yield the console for what a person watches.

    File descriptors are redirected, not only Python's streams: the libraries beneath write too.
    """
    console = os.fdopen(os.dup(2), "w", buffering=1)
    with open(log, "w", buffering=1) as handle:
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)
        try:
            yield console
        except (UserError, Unfinished) as error:
            print(error, file=sys.stderr)
            sys.exit(1)
        except Exception:
            traceback.print_exc()
            sys.exit(1)
