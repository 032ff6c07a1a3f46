"""The command line of what is installed: ``python -m score_sde --help``."""

import sys

from score_sde.cli.main import main

sys.exit(main())
