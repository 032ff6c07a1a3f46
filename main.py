"""The command line from a checkout: ``python main.py --help``."""

import sys

from score_sde.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
