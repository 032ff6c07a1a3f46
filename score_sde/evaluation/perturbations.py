"""Perturbations: real items that are spoilt by known amounts, to see what a metric tells from real ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Spoil = Callable[[Tensor, float, torch.Generator], Tensor]
"""(x, amount, generator) -> items (n, *event), both in model units."""


@dataclass(frozen=True)
class Perturbation:
    """``function`` spoils items by each of the ``amounts``, from the least to the most; ``words`` say an amount."""

    function: Spoil
    amounts: tuple[float, ...]
    words: Callable[[float], str]
    axes: int = 0
    """Axes that an item has at least."""


def noise(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """x + amount std z, std that of all entries about their means over the items."""
    std = x.var(0, correction=0).mean().sqrt()
    return x + amount * std * torch.randn(x.shape, dtype=x.dtype, generator=generator)


def blur(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Gaussian smoothing along every axis behind the channels, of a standard deviation of so many entries; weights of
    what lies within the item add up to 1."""
    for axis in range(2, x.ndim):
        index = torch.arange(x.shape[axis], dtype=x.dtype)
        reach = int(4 * amount) + 1
        # In bands, as the matrix of a long axis would be large.
        offsets = torch.arange(-reach, reach + 1)
        weights = torch.exp(-0.5 * (offsets / amount) ** 2).to(x.dtype)
        total, norm = torch.zeros_like(x), torch.zeros_like(index)
        for offset, weight in zip(offsets.tolist(), weights.tolist(), strict=True):
            low, high = max(0, -offset), min(x.shape[axis], x.shape[axis] - offset)
            if low < high:
                total.narrow(axis, low, high - low).add_(x.narrow(axis, low + offset, high - low), alpha=weight)
                norm[low:high] += weight
        x = total / norm.view(-1, *[1] * (x.ndim - 1 - axis))
    return x


def shrinkage(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """m + (1 - amount) (x - m), m the mean of the items."""
    mean = x.mean(0)
    return mean + (1 - amount) * (x - mean)


def _percent(text: str) -> Callable[[float], str]:
    return lambda amount: text.format(f"{100 * amount:g} %")


PERTURBATIONS: dict[str, Perturbation] = {
    "noise": Perturbation(noise, (0.05, 0.1, 0.2, 0.5, 1.0), _percent("noise of {}")),
    "blur": Perturbation(blur, (0.5, 1.0, 2.0, 4.0), lambda amount: f"a blur over {amount:g} entries", axes=2),
    "shrinkage": Perturbation(shrinkage, (0.02, 0.05, 0.1, 0.2, 0.5), _percent("shrinkage by {}")),
}
"""What is done to items, by name."""

LOSS: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
"""Shares of the items, those next to one of them, that are lost in turn, a mode."""
LOST = "lost"


def words(power: Mapping[str, float | None]) -> str:
    """The least amounts that are told, "" for none."""
    texts = {name: one.words for name, one in PERTURBATIONS.items()} | {LOST: _percent("a loss of {} of the items")}
    return ", ".join(texts[name](amount) for name, amount in power.items() if amount is not None)


def without_a_mode(x: Tensor, spare: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Features x (n, d) less the share of them nearest to a random one, in whose place come some of the ``spare`` items
    (k, d) that are further away from it, as far as there are any."""
    count = round(share * len(x))
    center = x[torch.randint(len(x), (1,), generator=generator)]
    away, spared = (torch.linalg.vector_norm(part - center, dim=1) for part in (x, spare))
    order = away.argsort()
    kept, radius = order[count:], away[order[count - 1]] if count else away.new_zeros(())
    return torch.cat([x[kept], spare[spared > radius][:count]])
