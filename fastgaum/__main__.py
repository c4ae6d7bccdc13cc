"""`python -m fastgaum` is the `fastgaum` command."""

from __future__ import annotations

import sys

from fastgaum.cli.app import main

# Worker processes import this module again: they must not start a command of their own.
if __name__ == "__main__":
    sys.exit(main())
