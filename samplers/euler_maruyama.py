"""The Euler-Maruyama method on the reverse SDE."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.checks import check_factor
from samplers.numerics.transition import root
from samplers.step import Result


@dataclass(frozen=True)
class EulerMaruyama:
    """x_s = x + (f x - (1 + eta^2) / 2 g^2 score) (s - t) + temperature eta sqrt(g^2 (t - s)) z. Order 1.

    ``eta`` chooses among processes that have the same marginals (Zhang and Chen 2023, section 4; Karras et al. 2022,
    eq. 6): 1 is the reverse SDE (Song et al. 2021, eq. 6), 0 the probability-flow ODE, more than 1 adds Langevin
    dynamics. ``temperature`` multiplies the noise alone, so that below 1 the samples are less spread than the model.
    """

    eta: float = 1.0
    temperature: float = 1.0
    order: ClassVar[float] = 1
    steps: ClassVar[int] = 500
    grid: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        check_factor("eta", self.eta)
        check_factor("temperature", self.temperature)

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        start, length = model.sde.level(t), t.item() - s.item()
        added = start.g2 * length
        kept = (1 - start.f * length) * x
        mean = torch.add(kept, model.score(x, t), alpha=0.5 * (1 + self.eta**2) * added)
        scale = self.eta * self.temperature
        return (torch.add(mean, noise(x), alpha=scale * root(added)) if scale else mean), carry
