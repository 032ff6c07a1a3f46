"""Plots: pictures, strips, films and curves."""

import logging
import os
import sys

# Nothing is shown on a screen, and a notebook hands its own backend to its children, where it may not be installed:
# matplotlib looks at the variable as it is imported.
if "matplotlib" not in sys.modules:
    _backend = os.environ.pop("MPLBACKEND", None)
    os.environ["MPLBACKEND"] = "agg"
    _log = logging.getLogger("matplotlib")
    _level = _log.level
    # Of a home folder that is read-only it warns, and takes another.
    _log.setLevel(logging.ERROR)
    import matplotlib.pyplot  # noqa: F401

    _log.setLevel(_level)
    del os.environ["MPLBACKEND"]
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
