"""Draws of one law, one stream per row, some of them ahead of their time so that few operations are needed for each."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from samplers.host import has_float64, send
from samplers.noise.laws import Law
from samplers.noise.philox import LANES, Philox
from samplers.padding import real_index

CPU = torch.device("cpu")
AT_ONCE_ON_CPU, AT_ONCE = 2**17, 2**22
"""Words worked on at once: temporary tensors of some MiB on the CPU, of some hundred on a device."""

FIRST_ON_CPU, BLOCK_ON_CPU = 2**11, 2**15
"""Numbers of the first and of later blocks of draws on the CPU: the first ones take as long as the calls for them."""

DRAW_FROM_HOST, BLOCK_FROM_HOST = 2**12, 2**15
"""Numbers of a draw up to which a device gets them from the host, and of a block of those, one copy: for so few that
should take less time than to start the 200 kernels of the formula there, a guess that no device has been asked yet."""

FIRST, BLOCK = 2**20, 2**23
"""Numbers of the first and of later blocks that a device draws; 32 MiB."""

MOST = 32
"""Draws of a block that a device draws, or of one on the CPU."""


class Draws:
    """Numbers of a law, in draws of the shape of the states; row i has those of stream i, one draw after the other,
    whatever the device and however many were drawn ahead.

    ``sizes``, one per row, are as in SeededNoise: an entry has the number of its place among what is real of its row.
    """

    def __init__(self, streams: Philox, law: Law, sizes: Sequence[int] | None = None) -> None:
        self.streams, self.law, self.sizes = streams, law, sizes
        # Words of each row that were taken, by draws ahead too, and those of one draw.
        self.taken, self.per_draw = [0] * len(streams), [0] * len(streams)
        self.place: tuple = ()
        # The draws of the last block, of which some are still to come.
        self.block, self.ahead = torch.empty(0, device="cpu"), 0

    def next(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """The next draw, (B, *event), rounded to the law's dtype before it takes its own."""
        place = shape, dtype, device
        again = self.place == place
        if not (self.ahead and again):
            # What was drawn ahead for another place was not drawn.
            self._take(-self.ahead)
            self.place, self.block = place, self._block(shape, dtype, device, again)
            self.ahead = len(self.block)
        self.ahead -= 1
        return self.block[-1 - self.ahead]

    def _take(self, draws: int) -> None:
        self.taken = [taken + draws * words for taken, words in zip(self.taken, self.per_draw, strict=True)]

    # Tensors of inference mode could not be differentiated through later.
    @torch.inference_mode(False)
    def _block(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, again: bool) -> Tensor:
        """The next draws, (draws, B, *event)."""
        count, *event = shape
        index = (
            None if self.sizes is None else real_index(torch.tensor(self.sizes, device="cpu"), event).view(count, -1)
        )
        counts = [math.prod(event)] * count if index is None else (index.amax(1) + 1).tolist()
        self.per_draw = [-(-n // self.law.per_word) for n in counts]
        where, draws = _plan(math.prod(shape), device, again)
        block = torch.empty(draws, count, math.prod(event), dtype=self.law.dtype, device=where)
        if where == CPU and draws == 1 and self.law.read_as == np.float64 and index is None:
            self._read_in_place(block)
        else:
            self._fill(block, index)
        self._take(draws)
        if self.law.dtype == torch.float64 and not has_float64(device):
            # In float32 there, and still below 1.
            block.clamp_(max=1 - 2.0**-24)
        return send(block.view(draws, *shape), device, dtype)

    def _fill(self, block: Tensor, index: Tensor | None) -> None:
        """Fills the next draws (draws, B, n) from words."""
        draws, count, _ = block.shape
        length, where = draws * max(self.per_draw, default=0), block.device
        rows = max(1, (AT_ONCE_ON_CPU if where == CPU else AT_ONCE) // max(length, 1))
        for start in range(0, count if length else 0, rows):
            part = range(start, min(start + rows, count))
            words = self._read(part, length) if where == CPU else self._made(part, length, where)
            some, out = slice(start, part.stop), block[:, start : part.stop].movedim(0, 1)
            if index is None:
                self.law.numbers(words.unflatten(1, (draws, -1)), out)
            else:
                self._scatter(words, index[some], self.per_draw[some], out)

    def _read_in_place(self, block: Tensor) -> None:
        """Fills the next draw (1, B, n) with numbers that numpy makes itself, one per word."""
        for row, numbers in enumerate(block[0].numpy()):
            self.law.read(self._source(row), numbers)

    def _read(self, rows: range, length: int) -> Tensor:
        """The next words (B, length) of some rows from numpy's generator, as the law reads them."""
        words: np.ndarray = np.empty((len(rows), length), self.law.read_as)
        for row, found in zip(rows, words, strict=True):
            self.law.read(self._source(row), found)
        return torch.from_numpy(words)

    def _source(self, row: int) -> np.random.Philox:
        """numpy's generator where the next words of a row are to be read."""
        place = self.taken[row]
        return self.streams.here(row, (place // LANES, 0, self.law.jump, 0), place % LANES)

    def _made(self, rows: range, length: int, device: torch.device) -> Tensor:
        """The same words, made on a device."""
        taken = self.taken[rows.start : rows.stop]
        skipped = [place % LANES for place in taken]
        most = max(skipped)
        counter = 1 + torch.arange(-(-(most + length) // LANES), device=device)
        if len(set(taken)) == 1:
            words = self.streams.there((counter + taken[0] // LANES, 0, self.law.jump, 0), rows, device)
            return words[:, most : most + length]
        first, offsets = send(torch.tensor([taken, skipped], device="cpu")[..., None], device)
        words = self.streams.there((counter + (first - offsets) // LANES, 0, self.law.jump, 0), rows, device)
        return words.gather(1, offsets + torch.arange(length, device=device))

    def _scatter(self, words: Tensor, index: Tensor, per_draw: list[int], out: Tensor) -> None:
        """Fills out (B, draws, n): each row with the numbers at its own places, ``index`` (B, n), and 0 elsewhere."""
        flat = out.new_empty(len(words), words.shape[1] * self.law.per_word)
        self.law.numbers(words, flat)
        where = torch.stack([index, torch.tensor(per_draw, device="cpu")[:, None].expand_as(index)])
        index, per_draw_there = send(where, out.device)[:, :, None]
        draw = torch.arange(out.shape[1], device=out.device)[:, None]
        places = (index + self.law.per_word * per_draw_there * draw).clamp_(min=0)
        out.copy_(torch.where(index < 0, 0, flat.gather(1, places.flatten(1)).view(out.shape)))


def _plan(count: int, device: torch.device, again: bool) -> tuple[torch.device, int]:
    """Where draws of so many numbers are made for a device, and how many at once; more where some were asked before."""
    count = max(count, 1)
    if device.type == "cpu":
        return CPU, min(max((BLOCK_ON_CPU if again else FIRST_ON_CPU) // count, 1), MOST)
    if count <= DRAW_FROM_HOST:
        return CPU, BLOCK_FROM_HOST // count
    if not has_float64(device):
        return CPU, 1
    return device, min(max((BLOCK if again else FIRST) // count, 1), MOST)
