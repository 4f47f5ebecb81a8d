"""`python -m skyweave.config [folder]`: renew the generated files of the configuration."""

import sys
from pathlib import Path

from skyweave.config.docs import write
from skyweave.errors import UserError

if __name__ == "__main__":
    try:
        write(Path(sys.argv[1] if len(sys.argv) > 1 else "config"))
    except UserError as error:
        sys.exit(str(error))
