"""`python -m unilat` is `unilat`."""

import sys

from unilat.cli import main

if __name__ == "__main__":
    sys.exit(main())
