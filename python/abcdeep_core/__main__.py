"""`python -m abcdeep_core` is the command `abcdeep`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
