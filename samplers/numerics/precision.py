"""Precision: float32 without TF32, whose eleven bits of mantissa an adaptive solver would take for the model's own."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions on CUDA multiply in IEEE float32 inside; torch takes TF32 for them unless it is told otherwise.

    On an H200 TF32 put 0.03 nats of rounding on the log-likelihood of an 8 x 8 image, and full float32 1e-3.
    """
    cudnn = torch.backends.cudnn
    # torch's newer switch and its older one refuse to be mixed: the newer where there is one.
    switch, name, exact = (
        (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    )
    held = getattr(switch, name)
    setattr(switch, name, exact)
    try:
        yield
    finally:
        setattr(switch, name, held)
