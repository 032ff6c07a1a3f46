"""Brownian paths: one per row, a function of time that is evaluated wherever it is asked for."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from samplers.host import has_float64, send
from samplers.noise.draws import AT_ONCE, AT_ONCE_ON_CPU
from samplers.noise.laws import NORMAL
from samplers.noise.philox import LANES, Philox
from samplers.padding import real_index

DEPTH = 20
"""Halvings of an octave of the clock: the path is resolved to 2^-20 of the clock's own value."""

OCTAVES = 2**15
"""Added to the number of an octave, so that it is the last word of a counter and no stream of SeededNoise."""

FEW_STREAMS, LONG_STREAM = 2**8, 2**6
"""Up to so many streams, or from so many words of each, numpy's generator is faster than the formula on the CPU."""


class BrownianPaths:
    """A Brownian motion W for each row, of the shape of its event, in the clock tau > 0; in float64.

    On an octave of the clock, [2^k, 2^(k+1)], W is the sum of Levy and Ciesielski, with u = tau / 2^k - 1:

        W(tau) - W(2^k) = 2^(k/2) (u z_0 + sum over levels l < 20 of 2^(-l/2) h(2^l u - j) z_(l, j)),  j = floor(2^l u),

    h(v) = min(v, 1 - v): independent standard normal numbers z, one for each interval of a tree of halves, and the law
    is exact at whole multiples of 2^-20. A z is a function of the row's key, k, the interval and the place in the event
    (``Philox``), so that the value at a time depends on no other time that was asked for, and nothing is stored. The
    clock of a diffusion spans ten and more powers of ten, which one tree could not resolve at its small end.
    """

    def __init__(self, streams: Philox, sizes: Sequence[int] | None = None) -> None:
        self.streams, self.sizes = streams, sizes
        self.last: tuple = ()
        self.index: Tensor | None = None

    @torch.inference_mode(False)
    def increment(self, shape: tuple[int, ...], device: torch.device, start: float, end: float) -> Tensor:
        """W(end) - W(start), (B, *event), for 0 < start < end, both at their place on the path (``resolved``); quickest
        from late to early. 0 where rows are padded."""
        where = device if has_float64(device) else torch.device("cpu")
        (upper, last_cell), (lower, first_cell) = _place(end), _place(start)
        if self.last[:-1] == (shape, where, end):
            above = self.last[-1]
        else:
            self.index = self._index(shape, where)
            above = self._values(shape, where, upper, upper, last_cell)[0]
        below, climb = self._values(shape, where, lower, upper, first_cell)
        self.last = shape, where, start, below
        return send(above + climb - below, device, torch.float64)

    def _index(self, shape: tuple[int, ...], where: torch.device) -> Tensor | None:
        if self.sizes is None:
            return None
        return send(real_index(torch.tensor(self.sizes, device="cpu"), shape[1:]).flatten(1), where)

    def _values(
        self, shape: tuple[int, ...], where: torch.device, octave: int, upper: int, cell: int
    ) -> tuple[Tensor, Tensor]:
        """W(tau) - W(2^octave), tau = 2^octave (1 + cell / 2^20), and W(2^upper) - W(2^octave)."""
        span = 2**DEPTH >> torch.arange(DEPTH, device=where)
        offset = cell % span
        octaves = octave + torch.arange(max(upper - octave, 1), device=where)
        # Intervals are numbered as in a heap, from 1; 0 is the whole octave, whose z is that of its ends.
        nodes = torch.cat([(2**DEPTH + cell) // span, torch.zeros_like(octaves)])
        trees = torch.cat([torch.full_like(span, octave), octaves])
        weights = torch.zeros(2, len(nodes), dtype=torch.float64, device=where)
        weights[0, :DEPTH] = torch.minimum(offset, span - offset) * span.double().rsqrt() * 2.0 ** (-DEPTH / 2)
        weights[0, DEPTH] = cell / 2**DEPTH
        if upper > octave:
            weights[1, DEPTH:] = torch.exp2(0.5 * (octaves - octave).double())
        totals = torch.zeros(2, *shape, dtype=torch.float64, device=where).flatten(2)
        count = totals.shape[-1]
        rows = max(1, (AT_ONCE_ON_CPU if where.type == "cpu" else AT_ONCE) // max(1, shape[0] * count // 2))
        for some in range(0, len(nodes), rows):
            part = slice(some, some + rows)
            totals += torch.tensordot(weights[:, part], self._normals(nodes[part], trees[part], shape[0], count), 1)
        if self.index is not None:
            totals = torch.where(self.index < 0, 0, totals.gather(2, self.index.clamp(min=0).expand_as(totals)))
        return tuple(2 ** (octave / 2) * totals.unflatten(2, shape[1:]))

    def _normals(self, nodes: Tensor, trees: Tensor, rows: int, count: int) -> Tensor:
        """The numbers z (n, B, count) of n intervals of their octaves' trees."""
        length = -(-count // NORMAL.per_word)
        if nodes.device.type == "cpu" and (len(nodes) * rows <= FEW_STREAMS or length >= LONG_STREAM):
            words = np.empty((len(nodes), rows, length), np.int64)
            places = zip(words, nodes.tolist(), trees.tolist(), strict=True)
            for found, node, tree in places:
                for row in range(rows):
                    NORMAL.read(self.streams.here(row, (0, node, 0, OCTAVES + tree)), found[row])
            made = torch.from_numpy(words)
        else:
            counter = 1 + torch.arange(-(-length // LANES), device=nodes.device)
            node, tree = nodes[:, None, None], OCTAVES + trees[:, None, None]
            made = self.streams.there((counter, node, 0, tree), range(rows), nodes.device)[..., :length]
        numbers = torch.empty(*made.shape[:2], count, dtype=torch.float64, device=nodes.device)
        NORMAL.numbers(made, numbers)
        return numbers


def resolved(tau: float) -> float:
    """tau > 0, rounded to where the path has a place: to 2^-20 of its octave's beginning."""
    octave, cell = _place(tau)
    return math.ldexp(2**DEPTH + cell, octave - DEPTH)


def _place(tau: float) -> tuple[int, int]:
    """The octave of tau and its cell there."""
    mantissa, exponent = math.frexp(tau)
    return exponent - 1, round((2 * mantissa - 1) * 2**DEPTH)
