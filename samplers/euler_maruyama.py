"""The Euler-Maruyama method on the reverse SDE."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.checks import check_factor
from samplers.numerics.diffusion import PROCESS, as_diffusion, carried_variance
from samplers.numerics.transition import root
from samplers.step import Result


@dataclass(frozen=True)
class EulerMaruyama:
    """x_s = x + (velocity - eta^2 w / 2 score) (s - t) + temperature eta sqrt(w (t - s)) z, with w = g^2 by default:
    x + (f x - (1 + eta^2) / 2 g^2 score) (s - t) + temperature eta sqrt(g^2 (t - s)) z. Order 1.

    Every w(t) >= 0 has the marginals of the process (Song et al. 2021, appendix D.1; Ma et al. 2024, SiT, eq. 6).
    ``diffusion`` says which: "process", g^2; "sigma", sigma(t); "sine", sin^2(pi t), of t / t_max where t_max is above
    1; or a number, the same at every time. All but g^2 are finite at an open noise end, so that a run of theirs starts
    there by the formula, where others start by x_s = alpha_s D + sigma_s z. Near the data the score's slope grows as
    1 / sigma^2, and no step can follow it: of all but g^2 a step adds at most the variance sigma_s^2 / 4.

    ``eta`` scales sqrt(w) (Zhang and Chen 2023, section 4; Karras et al. 2022, eq. 6): of g^2, 1 is the reverse SDE
    (Song et al. 2021, eq. 6), 0 the probability-flow ODE, more than 1 adds Langevin dynamics. ``temperature``
    multiplies the noise alone, so that below 1 the samples are less spread than the model.
    """

    eta: float = 1.0
    temperature: float = 1.0
    diffusion: str | float = PROCESS
    order: ClassVar[float] = 1
    steps: ClassVar[int] = 500
    grid: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        check_factor("eta", self.eta)
        check_factor("temperature", self.temperature)
        object.__setattr__(self, "diffusion", as_diffusion(self.diffusion))

    @property
    def from_open_end(self) -> bool:
        """Whether it starts at an open noise end by its own formula."""
        return self.diffusion != PROCESS

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        start, length = model.sde.level(t), t.item() - s.item()
        if self.diffusion == PROCESS:
            added = start.g2 * length
            mean = torch.add((1 - start.f * length) * x, model.score(x, t), alpha=0.5 * (1 + self.eta**2) * added)
            std = self.eta * self.temperature * root(added)
        else:
            added = carried_variance(self.diffusion, self.eta, model.sde, t, s)
            # velocity (s - t) + added / 2 score, in terms of x - alpha D and D, whose factors are finite everywhere.
            pull = start.sigma_rate / start.sigma * length + 0.5 * added / start.sigma**2
            mean = torch.add((1 - pull) * x, model(x, t), alpha=pull * start.alpha - start.alpha_rate * length)
            std = self.temperature * root(added)
        return (torch.add(mean, noise(x), alpha=std) if std else mean), carry
