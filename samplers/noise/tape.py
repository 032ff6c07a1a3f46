"""A tape of noise: what a run asks for, recorded once, and played from tensors that are filled before it runs again."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from samplers.protocol import Noise

Step = tuple[Tensor, Tensor] | None
"""The ends of the step that a draw was made in; None outside of steps."""


@dataclass(frozen=True)
class Draw:
    """Numbers that were asked for: in which step, whether uniform, and like what, a tensor of one number's memory."""

    step: Step
    uniform: bool
    like: Tensor


class Tape:
    """Noise that passes on the numbers of ``noise``, and remembers what was asked for."""

    def __init__(self, noise: Noise, step: Step = None, draws: list[Draw] | None = None) -> None:
        self.noise, self.step = noise, step
        self.draws: list[Draw] = [] if draws is None else draws

    def __call__(self, x: Tensor) -> Tensor:
        return self._kept(self.noise(x), False)

    def uniform(self, x: Tensor) -> Tensor:
        return self._kept(self.noise.uniform(x), True)

    def between(self, t: Tensor, s: Tensor) -> "Tape":
        return Tape(self.noise.between(t, s), (t, s), self.draws)

    def _kept(self, found: Tensor, uniform: bool) -> Tensor:
        self.draws.append(Draw(self.step, uniform, found.new_empty(()).expand(found.shape)))
        return found


class Played:
    """Noise for a run that asks for what a tape has recorded, in the same order: tensors of its own, which hold the
    numbers of the last noise that it was filled with."""

    def __init__(self, draws: list[Draw]) -> None:
        self.draws, self.place = draws, 0
        self.numbers = [draw.like.new_empty(draw.like.shape) for draw in draws]

    def fill(self, noise: Noise) -> None:
        """The numbers that ``noise`` would have given, drawn in the order in which they were asked for."""
        self.place, now, source = 0, None, noise
        for draw, numbers in zip(self.draws, self.numbers, strict=True):
            if draw.step is not now:
                now, source = draw.step, noise if draw.step is None else noise.between(*draw.step)
            ask: Callable[[Tensor], Tensor] = source.uniform if draw.uniform else source
            numbers.copy_(ask(draw.like), non_blocking=True)

    def __call__(self, x: Tensor) -> Tensor:
        self.place += 1
        return self.numbers[self.place - 1]

    uniform = __call__

    def between(self, t: Tensor, s: Tensor) -> "Played":
        return self
