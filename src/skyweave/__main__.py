"""`python -m skyweave`: the same as the command `skyweave`."""

import sys

from skyweave.cli import main

if __name__ == "__main__":
    sys.exit(main())
