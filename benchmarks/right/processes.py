"""Processes: one alone that goes through all that several would, collectives included."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.right.training import relative, trainer_on
from benchmarks.sections import Check, LeftOut, Setting
from benchmarks.sides import sides
from sde.distributed.sharding import whole
from sde.distributed.world import PARALLEL, World

STEPS = 4


class Alone(World):
    """A world of one process that replicates, shards and averages all the same, where a World of one does not."""

    def distribute(self, module: nn.Module, parallel: str) -> nn.Module:
        return PARALLEL[parallel](module)

    def mean(self, x: Tensor) -> Tensor:
        dist.all_reduce(x := x.clone())
        return x

    def full_tensor(self, x: Tensor) -> Tensor:
        return whole(x)


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """A process group of this process: nccl for CUDA, gloo for the CPU."""
    if dist.is_initialized():
        raise LeftOut("this process is one of a group already: start it without torchrun")
    with tempfile.TemporaryDirectory() as folder:
        store = dist.FileStore(str(Path(folder) / "store"), 1)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()
            # gloo's threads let go of what they hold.
            time.sleep(0.2)


def processes(setting: Setting) -> Iterator[Check]:
    """DDP and FSDP with one process, over NCCL on CUDA and gloo on the CPU: losses and norms against plain training."""
    device = setting.device
    if device.type not in ("cpu", "cuda"):
        raise LeftOut(f"torch has no process group for {device.type}")
    side = sides(setting)[0]

    def numbers(world: World, parallel: str) -> Tensor:
        run = trainer_on(side, setting, world, parallel=parallel)
        done = [run.training_step() for _ in range(STEPS)]
        return torch.stack([torch.stack([step.loss, step.norm]) for step in done]).cpu()

    plain = numbers(World(), "ddp")
    with group(device):
        for parallel in PARALLEL:
            error = relative(numbers(Alone(), parallel), plain)
            yield Check(parallel, f"{STEPS} steps", error, 1e-4)
