"""The reverse diffusion sampler."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.checks import check_factor
from samplers.numerics.diffusion import PROCESS, as_diffusion, carried_variance
from samplers.numerics.transition import alpha_ratio, forward_variance, root
from samplers.step import Result


@dataclass(frozen=True)
class ReverseDiffusion:
    """Reverse diffusion sampling (Song et al. 2021, eq. 46 of appendix E): the forward step's own discretization.

    Of x_t = x_s + f_s(x_s) + G_s z follows x_s = x_t - f_s(x_t) + G_s^2 score(x_t, t) + G_s z. Here the forward step is
    the exact transition of any SDE, f_s(x) = (alpha_t / alpha_s - 1) x with G_s^2 the variance of q(x_t | x_s), which
    for VE and VP are the paper's: sigma_t^2 - sigma_s^2, and (2 - sqrt(1 - beta)) x + beta score + sqrt(beta) z. The
    paper's code takes Euler-Maruyama's f and G for sub-VP. ``temperature`` multiplies the noise alone. Order 1.

    ``diffusion`` is that of EulerMaruyama: "process", as above, or another w. A forward step with it is x_t - x_s =
    (alpha_t - alpha_s) x_0 + (sigma_t - sigma_s) n in the flow's part, so that with the predicted noise n and W = w
    (t - s), at most sigma_s^2 / 4, x_s = alpha_s D + sigma_s n + W / 2 score + sqrt(W) z: DDIM's, and renewed noise.
    """

    temperature: float = 1.0
    diffusion: str | float = PROCESS
    order: ClassVar[float] = 1
    steps: ClassVar[int] = 500
    grid: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        check_factor("temperature", self.temperature)
        object.__setattr__(self, "diffusion", as_diffusion(self.diffusion))

    @property
    def from_open_end(self) -> bool:
        """Whether it starts at an open noise end by its own formula."""
        return self.diffusion != PROCESS

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        start, end = model.sde.level(t), model.sde.level(s)
        if self.diffusion == PROCESS:
            added = forward_variance(start, end)
            mean = torch.add((2 - alpha_ratio(start, end)) * x, model.score(x, t), alpha=added)
        else:
            added = carried_variance(self.diffusion, 1.0, model.sde, t, s)
            # Of x - alpha D, which is sigma n and -sigma^2 score.
            kept = end.sigma / start.sigma - 0.5 * added / start.sigma**2
            mean = torch.add(kept * x, model(x, t), alpha=end.alpha - kept * start.alpha)
        std = self.temperature * root(added)
        return (torch.add(mean, noise(x), alpha=std) if std else mean), carry
