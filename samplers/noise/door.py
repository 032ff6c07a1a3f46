"""The one door of noise: what samplers get, made of what a caller gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from samplers.protocol import Noise, Process


@dataclass(frozen=True)
class ProcessNoise:
    """A noise with all members of ``Noise``, whose normal numbers have passed the constraint of ``process``.

    ``source`` may be a plain callable like ``torch.randn_like``: it is then the noise of every step, and has no uniform
    numbers. Those are ``uniforms``', the source of the whole run, where the noise of one step has none of its own.
    """

    source: Callable[[Tensor], Tensor]
    process: Process
    uniforms: Any = None

    def __call__(self, x: Tensor) -> Tensor:
        """Standard normal numbers, constrained, like x."""
        return self.process.constrain(self.source(x))

    def uniform(self, x: Tensor) -> Tensor:
        """Numbers in [0, 1) of the shape of x. Raises TypeError where the source is a plain callable."""
        for source in (self.source, self.uniforms):
            if hasattr(source, "uniform"):
                return source.uniform(x)
        raise TypeError(
            f"noise = {getattr(self.source, '__name__', type(self.source).__name__)}: it has normal numbers alone, and "
            "uniform ones are asked for; give a noise with uniform(x), as samplers.SeededNoise(seeds)"
        )

    def between(self, t: Tensor, s: Tensor) -> Noise:
        """The noise of a step from t to s; the same for every step where the source knows no steps."""
        step = getattr(self.source, "between", None)
        return self if step is None else ProcessNoise(step(t, s), self.process, self.source)


def as_noise(noise: Callable[[Tensor], Tensor], process: Process) -> Noise:
    """Any noise as samplers take it: a plain callable like ``torch.randn_like``, or one with ``uniform`` and
    ``between``."""
    return noise if isinstance(noise, ProcessNoise) else ProcessNoise(noise, process)
