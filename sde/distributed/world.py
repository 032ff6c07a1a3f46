"""The world: the processes of one run, as torchrun starts them; a process alone is a world of its own."""

import copy
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

BACKENDS = {"cuda": "nccl", "xpu": "xccl"}
"""What joins the tensors of several processes, by the kind of their devices; on the CPU gloo does."""


@dataclass(frozen=True)
class World:
    """This process, number ``rank`` of ``size``."""

    rank: int = 0
    size: int = 1

    @classmethod
    def start(cls, device: torch.device) -> "World":
        """The world that torchrun's environment variables describe, its process group started where it has several.
        Raises ValueError for several on a device that is no other's."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size > 1 and device.type not in ("cpu", *BACKENDS):
            raise ValueError(
                f"torchrun started {size} processes, and on {device.type} one computes alone: needs cpu, "
                f"{' or '.join(BACKENDS)}; start it without torchrun"
            )
        if size > 1 and not dist.is_initialized():
            if device.type == "cuda":
                torch.cuda.set_device(device)
            # gloo for Python objects, which need not pass through a device.
            own = f",{device.type}:{BACKENDS[device.type]}" if device.type != "cpu" else ""
            dist.init_process_group(f"cpu:gloo{own}")
        return cls(dist.get_rank(), dist.get_world_size()) if size > 1 else cls()

    @staticmethod
    def others() -> bool:
        """Whether torchrun started this process as another than the first one."""
        return os.environ.get("RANK", "0") != "0"

    @staticmethod
    def stop() -> None:
        """Leave the process group, where there is one."""
        if dist.is_initialized():
            dist.destroy_process_group()
            # Threads of gloo that still hold a tensor abort the process if the interpreter ends before they let go.
            time.sleep(0.2)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """This process's part of ``count`` rows; the parts are in order, and as equal as can be."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def batches(self, count: int, size: int) -> Iterator[slice]:
        """This process's part of ``count`` rows, at most ``size`` at a time."""
        mine = self.rows(count)
        return (slice(start, min(start + size, mine.stop)) for start in range(mine.start, mine.stop, size))

    def mean(self, x: Tensor) -> Tensor:
        """The mean over the processes of a tensor that each has."""
        if self.size > 1:
            dist.all_reduce(x := x.clone())
            x /= self.size
        return x

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in some process."""
        if self.size == 1:
            return flag
        counted = torch.tensor(float(flag), device=device)
        dist.all_reduce(counted)
        return counted.item() > 0

    def all_gather(self, value) -> list:
        """The picklable values of all processes, in order, in every one of them."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def gather(self, value) -> list:
        """The picklable values of all processes, in order, in the first one; nothing in the others."""
        if self.size == 1:
            return [value]
        values = [None] * self.size if self.is_main else None
        dist.gather_object(value, values)
        return values or []

    def all_gather_flat(self, parts: list) -> list:
        """The lists of all processes, one behind the other, in every one of them."""
        return [part for parts in self.all_gather(parts) for part in parts]

    def broadcast_from_main(self, function: Callable):
        """function(), called in the first process alone: its picklable value, or its error, in every one of them."""
        if self.size == 1:
            return function()
        value = failure = None
        try:
            value = function() if self.is_main else None
        except (OSError, ValueError, ArithmeticError) as error:
            failure = error
        # Not all errors can be pickled.
        kind = None if failure is None else OSError if isinstance(failure, OSError) else ValueError
        shared: list[Any] = [value, kind, str(failure)]
        dist.broadcast_object_list(shared)
        value, kind, text = shared
        if kind is not None:
            raise failure or kind(text)
        return value

    def distribute(self, module: nn.Module, parallel: str) -> nn.Module:
        """The module as it is trained, by a key of PARALLEL; a process alone trains the module itself."""
        return module if self.size == 1 else PARALLEL[parallel](module)

    def local(self, x: Tensor) -> Tensor:
        """This process's part of a tensor, where it is sharded."""
        if self.size == 1:
            return x
        from sde.distributed.sharding import local

        return local(x)

    def full_tensor(self, x: Tensor) -> Tensor:
        """All of a tensor, in every process; of a sharded one, every one must ask."""
        if self.size == 1:
            return x
        from sde.distributed.sharding import whole

        return whole(x)

    def collect(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """All of each tensor on the CPU of the first process, nothing in the others; every one must ask."""
        # One after the other, as there may be no room for all of them on a device.
        tensors = ((name, self.full_tensor(value)) for name, value in state.items())
        return {name: value.cpu() for name, value in tensors if self.is_main}


def body_of(module: nn.Module) -> nn.Module:
    """What of a module is split, compiled and laid out in memory: its ``network``, or where it has none, as of an
    autoencoder, the module itself."""
    return getattr(module, "network", module)


def replicate(module: nn.Module) -> nn.Module:
    """The module with its ``body_of`` under DistributedDataParallel; the parameters are those of ``module``."""
    if body_of(module) is module:
        return DistributedDataParallel(module)
    replica = copy.copy(module)
    replica._modules = dict(module._modules)
    replica.network = DistributedDataParallel(module.network)
    return replica


def shard(module: nn.Module) -> nn.Module:
    """The module itself, the parameters of its ``body_of`` split over the processes."""
    from sde.distributed.sharding import shard

    shard(body_of(module))
    return module


PARALLEL: dict[str, Callable[[nn.Module], nn.Module]] = {"ddp": replicate, "fsdp": shard}
"""How several processes train a module. ddp: each has all of it, and gradients are averaged; fsdp: parameters,
gradients, averages and the optimizer's memory are split, for networks that would not fit otherwise."""


def unsynchronized(module: nn.Module, last: bool):
    """A context in which backward passes keep gradients to themselves, for all but the last of several."""
    body = body_of(module)
    return body.no_sync() if not last and isinstance(body, DistributedDataParallel) else nullcontext()
