"""Entry point of ``python -m include.localnet``."""

import sys

from include.localnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
