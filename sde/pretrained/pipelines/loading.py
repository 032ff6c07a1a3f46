"""Loading by diffusers and transformers: without their progress bars, and what they say of parts nobody uses."""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_bars() -> Iterator[None]:
    """Within, neither library draws the progress of loading files, of which there is a bar for each part; nor does
    transformers say twice each time that its processors of images would like torchvision, which no pipeline here
    calls."""
    modules = [importlib.import_module(f"{name}.utils.logging") for name in ("diffusers", "transformers")]
    drawing = [module for module in modules if getattr(module, "_tqdm_active", True)]
    for module in drawing:
        module.disable_progress_bar()
    packages = logging.getLogger("transformers.utils.import_utils")
    level = packages.level
    packages.setLevel(logging.ERROR)
    try:
        yield
    finally:
        packages.setLevel(level)
        for module in drawing:
            module.enable_progress_bar()
