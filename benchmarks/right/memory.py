"""Memory: a chunk that does not fit is halved."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from benchmarks.sections import Check, LeftOut, Setting
from benchmarks.sides import gap
from samplers import SAMPLERS, Samples, generate
from sde import VPSDE, Denoiser

PER_SAMPLE = 32 * 2**20
"""Bytes that the network takes for each sample: far more than anything else does."""


class Hungry(nn.Module):
    """A network that takes PER_SAMPLE bytes of CUDA's memory for each sample; on the CPU it takes none, and says that
    there is no memory for more than ``limit`` of them."""

    num_classes = None

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.weight, self.limit = nn.Parameter(torch.tensor([0.5])), limit

    def forward(self, x: Tensor, c_noise: Tensor, cond=None) -> Tensor:
        if x.device.type != "cuda":
            if len(x) > self.limit:
                raise torch.OutOfMemoryError(f"{len(x)} samples")
            return self.weight * x
        taken = x.new_zeros(len(x), PER_SAMPLE // x.element_size())
        return self.weight * x + taken[:, : x[0].numel()].view_as(x)


@contextmanager
def room_for(samples: int, device: torch.device) -> Iterator[None]:
    """Memory of CUDA for this process, its allocator's and no setting of the card, in which this many samples fit and
    a half more do not."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    room = torch.cuda.memory_reserved(device) + 1.25 * samples * PER_SAMPLE
    torch.cuda.set_per_process_memory_fraction(min(1.0, room / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def memory(setting: Setting) -> Iterator[Check]:
    """Samples of chunks that did not fit the memory and were halved, against chunks of half the size.

    On CUDA the memory of this process is bounded for it, on the CPU the network says that there is none.
    """
    if setting.device.type not in ("cpu", "cuda"):
        raise LeftOut(f"there is no bound for the memory of {setting.device.type}")
    count, fit = 32, 16
    model = Denoiser(Hungry(fit), VPSDE()).eval().to(setting.device)

    def draw(chunk: int) -> tuple[Samples, int]:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = generate(model, SAMPLERS["ddim"](), count, (2,), steps=4, seed=0, batch_size=chunk)
        return found, sum("out of memory" in str(warning.message) for warning in told)

    with room_for(fit, setting.device):
        (halved, times), (asked, never) = draw(count), draw(fit)
    yield Check("a chunk that does not fit", "samples", gap(halved.x, asked.x), 1e-6)
    yield Check("a chunk that does not fit", f"halved {times} times, not once", abs(times - 1), 0)
    yield Check("a chunk that fits", f"halved {never} times, not never", never, 0)
