"""Philox4x64-10, the counter-based generator of all noise: words on the host and, the same, on any device."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplers.host import send

MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
"""What the two words of a key grow by in each round."""

ROUNDS = 10
LANES = 4
"""Words of a counter, and of what is made of it."""

LOW = 0xFFFFFFFF


class Philox:
    """Streams of 64-bit words, one per row, each with a key of its own (Salmon et al. 2011, "Parallel random numbers:
    as easy as 1, 2, 3", section 3.3).

    A key comes from its seed by numpy's SeedSequence, and the words of a row are those of ``np.random.Philox(seed)``.
    The four at counter c are a bijection of c under the row's key, so that any place of a stream is found at once, and
    that on a device needs nothing but the keys, which are sent there once. Words are int64 in two's complement.
    """

    def __init__(self, seeds: Iterable[int | np.random.SeedSequence]) -> None:
        sequences = [s if isinstance(s, np.random.SeedSequence) else np.random.SeedSequence(s) for s in seeds]
        keys = [sequence.generate_state(2, np.uint64) for sequence in sequences]
        self.keys: np.ndarray = np.array(keys, np.uint64).reshape(-1, 2)
        self.sent: dict[torch.device, Tensor] = {}
        # One generator serves all rows, since its state is nothing but a key and a counter.
        self.generator = np.random.Philox(0)
        self.counter = np.zeros(LANES, np.uint64)
        self.state: Any = {**self.generator.state, "buffer_pos": LANES}

    def __len__(self) -> int:
        return len(self.keys)

    def here(self, row: int, before: Sequence[int], skipped: int = 0) -> np.random.Philox:
        """numpy's generator, whose next words are those of a row at the counter after ``before``, the lowest word
        first, without the first ``skipped`` ones. It is the row's until it is asked for again."""
        self.counter[:] = before
        self.state["state"] = {"counter": self.counter, "key": self.keys[row]}
        self.generator.state = self.state
        if skipped:
            self.generator.random_raw(skipped)
        return self.generator

    def there(self, counter: tuple[Tensor | int, ...], rows: range, device: torch.device) -> Tensor:
        """Words (*, B, 4 n) of the rows, B of them, at counters of four words on the device, that broadcast to
        (*, B, n), the lowest first. Nothing is copied there but the keys, once."""
        table = self._table(device)[:, :, rows.start : rows.stop]
        keys, (whole, low, high) = table[:ROUNDS], table[ROUNDS:, :, :1]
        shape = torch.broadcast_shapes((1, 1), *(c.shape for c in counter if isinstance(c, Tensor)))
        # In this order of rows the high half of a product, and the words that it is mixed with, lie one under another.
        a, b = (torch.empty(2, *shape, dtype=torch.int64, device=device) for _ in range(2))
        a[0], a[1], b[0], b[1] = counter[2], counter[0], counter[1], counter[3]
        lead = (slice(None), *(None for _ in shape[:-2]))
        whole, low, high = whole[lead], low[lead], high[lead]
        for key in keys:
            product, mixed = a * whole, _high_product(a, low, high) ^ b
            mixed = mixed ^ key[lead]
            a, b = mixed.flip(0), product
        words = torch.broadcast_tensors(mixed[0], product[0], mixed[1], product[1])
        return torch.stack(words, -1).flatten(-2)

    def _table(self, device: torch.device) -> Tensor:
        """(13, 2, B, 1): the keys of the rounds and the multipliers, whole, their low and their high halves."""
        if device not in self.sent:
            rounds = np.arange(ROUNDS, dtype=np.uint64)[:, None, None] * np.array(WEYL, np.uint64)[:, None]
            factors = np.array(MULTIPLIERS[::-1], np.uint64)
            factors = np.stack([factors, factors & np.uint64(LOW), factors >> np.uint64(32)])[..., None]
            table = np.concatenate([self.keys.T + rounds, np.broadcast_to(factors, (3, 2, len(self.keys)))])
            self.sent[device] = send(torch.from_numpy(table.view(np.int64)[..., None]), device)
        return self.sent[device]


def _high_product(a: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The upper 64 bits of a (2^32 high + low), both unsigned, by halves of 32 bits, as no device has it ready."""
    a_low, a_high = a & LOW, _upper(a)
    middle = _upper(a_low * low).addcmul_(a_high, low)
    rest = (middle & LOW).addcmul_(a_low, high)
    return _upper(middle).addcmul_(a_high, high).add_(_upper(rest))


def _upper(a: Tensor) -> Tensor:
    """The upper half of an unsigned word."""
    return (a >> 32).bitwise_and_(LOW)
