"""Loading by diffusers and transformers: without their progress bars."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_bars() -> Iterator[None]:
    """Within, neither library draws the progress of loading files, of which there is a bar for each part."""
    modules = [importlib.import_module(f"{name}.utils.logging") for name in ("diffusers", "transformers")]
    drawing = [module for module in modules if getattr(module, "_tqdm_active", True)]
    for module in drawing:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in drawing:
            module.enable_progress_bar()
