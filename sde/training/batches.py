"""Batches: the micro-batches of a training run, read ahead by threads and copied to the device while it computes."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sde.condition.tree import Condition, map_condition
from sde.data import Dataset
from sde.data.prefetch import Prefetch
from sde.device import fits, pinned, send
from sde.distributed.world import World
from sde.process.base import SDE
from sde.training.augmentation import AS_THEY_ARE, Augmentation
from sde.training.copies import Copy, CopyStream
from sde.training.loss import BatchNoise, drawn
from sde.training.options import TrainingOptions


class Part(NamedTuple):
    """A micro-batch as the CPU makes it: ``positions`` (B,) of the items, where they lie in their cells and in their
    posteriors, and all other random numbers; items x, in data units, or their codes, and conditions, or None where
    those are on the device."""

    positions: Tensor
    x: Tensor | None
    cond: Condition | None
    in_cells: Tensor | None
    in_posterior: Tensor | None
    draws: BatchNoise


Placed = tuple[Tensor, Condition | None, BatchNoise]
"""Items of a micro-batch in model units, their conditions and random numbers, on the device."""

Copied = tuple[Tensor, Condition | None, Tensor | None, BatchNoise]
"""Items of a micro-batch, in data units and dequantized, or their codes, their conditions, where they lie in their
posteriors, and their random numbers, on the device."""


class Batches:
    """The micro-batches of a run, by number, counted from the first one of its first step. Items and random numbers
    follow from the seed and the number of items seen before the step alone, so that a continued run equals an
    uninterrupted one, and several processes one.

    ``data`` that fit stay on the device, and what else there is to read is read ahead by ``workers`` threads. On CUDA
    the next micro-batch is copied, from page-locked memory, while the network computes.

    Items are augmented as the ``outer`` part of their transform has encoded them, which is before an autoencoder sees
    them.
    """

    def __init__(
        self,
        data: Dataset,
        sde: SDE | None,
        options: TrainingOptions,
        world: World,
        device: torch.device,
        workers: int = 0,
        augmentation: Augmentation = AS_THEY_ARE,
    ) -> None:
        self.augmentation = augmentation
        self.data, self.sde, self.options, self.world, self.device = data.to(device), sde, options, world, device
        self.size = options.micro_batch_size(world.size)
        items = self.data.items if self.data.codes is None else self.data.codes
        self.resident = isinstance(items, Tensor) and items.device.type == device.type
        # Nothing is read ahead where the data are already in this process's memory.
        self.workers = 0 if self.resident and device.type == "cpu" else workers
        self.offset = 0
        """Items seen before the first step, as it would have been with the present size of batches."""
        self._epoch: tuple[int, Tensor] | None = None
        self._parts = Prefetch(self.read, self.workers, end=options.steps * options.gradient_accumulation)
        self._copies = CopyStream(device)
        self._next: tuple[int, Copy[Copied]] | None = None

    def _order(self, epoch: int) -> Tensor:
        held = self._epoch
        if held is None or held[0] != epoch:
            order = np.random.default_rng((self.options.seed, epoch)).permutation(len(self.data))
            # At once, as several threads read.
            self._epoch = held = (epoch, torch.from_numpy(order))
        return held[1]

    def indices(self, seen: int) -> Tensor:
        """Positions of the batch after ``seen`` items: a new random order every epoch, no item left out."""
        count, last = len(self.data), seen + self.options.batch_size
        epochs = range(seen // count, (last - 1) // count + 1)
        return torch.cat([self._order(e)[max(0, seen - e * count) : last - e * count] for e in epochs])

    def read(self, number: int) -> Part:
        """What the CPU does for a micro-batch of this process. Called from threads."""
        options, transform = self.options, self.data.transform
        step, part = divmod(number, options.gradient_accumulation)
        seen = self.offset + step * options.batch_size
        start = (part * self.world.size + self.world.rank) * self.size
        rows = slice(start, start + self.size)
        generator = torch.Generator().manual_seed(seed_of(options.seed, seen))
        index = self.indices(seen)[rows]
        shape = (options.batch_size, *self.data.inner_shape)
        draws = BatchNoise.draw(self.sde, shape, generator, options.times, rows)
        coupled = draws.z if self.data.noise is None else self.data.noise[index]
        draws = draws._replace(z=pinned(coupled, self.device), sizes=self.data.sizes_of(index))
        u, n = draws.in_cells(transform, self.data.dequantized), draws.of_posterior(transform)
        n = None if n is None else pinned(n, self.device)
        if self.resident:
            return Part(index, None, None, None if u is None else pinned(u, self.device), n, draws)
        x, cond = self._read(index, draws, u)
        cond = map_condition(lambda c: pinned(c, self.device), cond)
        return Part(index, pinned(x, self.device), cond, None, n, draws)

    def _read(self, index: Tensor, draws: BatchNoise, u: Tensor | None) -> tuple[Tensor, Condition | None]:
        if self.data.codes is not None:
            return self.data.coded_batch(index, draws.seeds)
        x, cond = self.data.batch(index, draws.seeds)
        return draws.dequantize(x, self.data.transform, u), cond

    def place(self, part: Part) -> Copied:
        """What is on the device already, or goes there."""
        x, cond = part.x, part.cond
        if x is None:
            x, cond = self._read(part.positions, part.draws, part.in_cells)
        # What the device cannot hold as it is gets there encoded.
        x = send(x, self.device) if fits(x, self.device) else x
        cond = map_condition(lambda c: send(c, self.device), cond)
        n = None if part.in_posterior is None else send(part.in_posterior, self.device)
        return x, cond, n, part.draws._replace(z=send(part.draws.z, self.device))

    def _begin(self, number: int) -> Copy[Copied]:
        part = self._parts.get(number)
        return self._copies.begin(lambda: self.place(part))

    def get(self, number: int) -> Placed:
        """x0 in model units and conditions, on the device, and random numbers of a micro-batch."""
        begun, self._next = self._next, None
        if begun is None or begun[0] != number:
            begun = number, self._begin(number)
        if self._copies.beside and self._parts.ready(number + 1):
            self._next = number + 1, self._begin(number + 1)
        return self.encoded(self._copies.take(begun[1]))

    @torch.no_grad()
    def encoded(self, copied: Copied) -> Placed:
        """A micro-batch in model units, augmented: on the device, where a learned transform is a network."""
        (x, cond, n, draws), transform = copied, self.data.transform
        if self.data.codes is not None:
            mean, std = x.chunk(2, 1)
            return drawn(mean, std, n), cond, draws
        y = send(transform.outer.encode(x), self.device)
        y, cond = self.augmentation(y, cond, draws.seeds)
        return drawn(*transform.inner_posterior(y), n), cond, draws

    def start_at(self, offset: int) -> None:
        """Set ``offset``, of which the numbers of all micro-batches depend."""
        self.offset, self._next = offset, None
        self._parts.forget()

    def close(self) -> None:
        """End the threads that read ahead."""
        self._parts.close()
        self._next = None


def seed_of(*parts: int) -> int:
    """A seed that differs where the parts do."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1
