"""`python -m tests.attack [WORD …]`: every attack, or those whose name has one of the words."""

import sys

from tests.attack.runner import main

if __name__ == "__main__":
    sys.exit(main())
