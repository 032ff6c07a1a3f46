"""The command line of what is installed: ``python -m score_sde --help``."""

import os
import sys

# Python puts the working folder first, where somebody else's sde or samplers may lie.
if sys.path[0] == os.getcwd() and not os.path.isdir(os.path.join(sys.path[0], "score_sde")):
    sys.path.append(sys.path.pop(0))

from score_sde.cli.main import main

sys.exit(main())
