"""Philox4x64-10, the counter-based generator of all noise: words on the host and, the same, on any device."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

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
        self.generators = [np.random.Philox(seed) for seed in seeds]
        self.sent: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self.generators)

    @cached_property
    def keys(self) -> np.ndarray:
        """(B, 2)."""
        found = [generator.state["state"]["key"] for generator in self.generators]
        return np.array(found, np.uint64).reshape(-1, 2)

    def sources(self, jump: int = 0) -> list[np.random.Philox]:
        """numpy's generators of the rows at the start of their streams, or where the third word of the counter is
        ``jump``."""
        if not jump:
            return self.generators
        start = np.array((0, 0, jump, 0), np.uint64)
        return [np.random.Philox(counter=start, key=key) for key in self.keys]

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
            self.sent[device] = torch.from_numpy(table.view(np.int64)[..., None]).to(device, non_blocking=True)
        return self.sent[device]


def put(generator: np.random.Philox, key: np.ndarray, before: Sequence[int]) -> None:
    """Puts a generator of numpy where its next word is the first of the four at the counter after ``before``, which
    has the lowest word first."""
    counter = np.array(before, np.uint64)
    generator.state = {
        "bit_generator": "Philox", "state": {"counter": counter, "key": key},
        "buffer": counter, "buffer_pos": LANES, "has_uint32": 0, "uinteger": 0,
    }  # fmt: skip


def _high_product(a: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The upper 64 bits of a (2^32 high + low), both unsigned, by halves of 32 bits, as no device has it ready."""
    a_low, a_high = a & LOW, _upper(a)
    middle = _upper(a_low * low).addcmul_(a_high, low)
    rest = (middle & LOW).addcmul_(a_low, high)
    return _upper(middle).addcmul_(a_high, high).add_(_upper(rest))


def _upper(a: Tensor) -> Tensor:
    """The upper half of an unsigned word."""
    return (a >> 32).bitwise_and_(LOW)
