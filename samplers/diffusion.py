"""Solvers of the reverse-time SDE."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplers.ancestral import forward_variance
from samplers.noise import check_factor
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
        f, added = model.sde.f(t), model.sde.g2(t) * (t - s)
        mean = (1 + f * (s - t)) * x + (0.5 * (1 + self.eta**2) * added) * model.score(x, t)
        scale = self.eta * self.temperature
        return (mean + scale * added.sqrt() * noise(x) if scale else mean), carry


@dataclass(frozen=True)
class ReverseDiffusion:
    """Reverse diffusion sampling (Song et al. 2021, eq. 46 of appendix E): the forward step's own discretisation.

    Of x_t = x_s + f_s(x_s) + G_s z follows x_s = x_t - f_s(x_t) + G_s^2 score(x_t, t) + G_s z. Here the forward step is
    the exact transition of any SDE, f_s(x) = (alpha_t / alpha_s - 1) x with G_s^2 the variance of q(x_t | x_s), which
    for VE and VP are the paper's: sigma_t^2 - sigma_s^2, and (2 - sqrt(1 - beta)) x + beta score + sqrt(beta) z. The
    paper's code takes Euler-Maruyama's f and G for sub-VP. ``temperature`` multiplies the noise alone. Order 1.
    """

    temperature: float = 1.0
    order: ClassVar[float] = 1
    steps: ClassVar[int] = 500
    grid: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        check_factor("temperature", self.temperature)

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        sde = model.sde
        added = forward_variance(sde, t, s)
        mean = (2 - (sde.log_alpha(t) - sde.log_alpha(s)).exp()) * x + added * model.score(x, t)
        return (mean + self.temperature * added.sqrt() * noise(x) if self.temperature else mean), carry
