"""Posterior samplers: score models of p(x_0 | y) for a measurement y = A(x_0) + N(0, sigma_y^2 I) in data units.

Each wraps a score model and states its posterior mean, so that it works with every sampler. The guided ones differ in
the covariance V of their Gaussian likelihood (see PosteriorGuidance, for H, J and r as well).
"""

from typing import Any

import torch
from torch import Tensor

from sde.data.transform import check_elementwise
from sde.inverse.conjugate_gradients import check_iterations, conjugate_gradients, inner
from sde.inverse.measurement import Operator, Posterior, PosteriorGuidance
from sde.inverse.operators import Mask
from sde.model.score import ScoreModel
from sde.process.base import SDE
from sde.process.coefficients import expand
from sde.process.level import Coefficient


class Replacement(Posterior):
    """The observed entries of D replaced by y, where a mask observes without noise (Song et al. 2021, appendix I.2).

    Where y is known exactly, E[x_0 | x_t, y] is y itself in the observed entries, and every sampler then carries them
    along alpha y + sigma z. The unobserved ones are those of D(x_t): what y says beyond its noised version in x_t is
    neglected, a bias that the repeated steps of RePaint (see samplers.repaint) lessen. Deviation: the paper draws z
    anew at every step, here it is the sampler's own, so that the marginals are the same and solvers of the flow work
    too.
    """

    operator: Mask

    def __init__(self, model: ScoreModel, mask: Mask, y: Tensor) -> None:
        if not isinstance(mask, Mask):
            raise ValueError(f"operator = {type(mask).__name__}: replacement needs a Mask; take another posterior")
        super().__init__(model, mask, y)
        check_elementwise(self.transform, "replacement")

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        denoised, y = self.model(x, t), self.y_for(x)
        self.predict_measurement(x)
        known = self.transform.encode(self.transform.dequantize(self.operator.adjoint(y), 0.5))
        return torch.where(self.operator.mask.to(x.device), known, denoised)


def data_std(model: ScoreModel, sigma_data: float | None) -> float:
    """sigma_data, the standard deviation of the data in model units, or for None the denoiser's own, or else 1."""
    if sigma_data is None:
        known: Any = next((module.sigma_data for module in model.modules() if hasattr(module, "sigma_data")), 1.0)
        return known
    if not sigma_data > 0:
        raise ValueError(f"sigma_data = {sigma_data}: needs a positive standard deviation of the data, in model units")
    return sigma_data


def isotropic_variance(sde: SDE, t: Tensor, std: float) -> Coefficient:
    """r_t^2 = sigma^2 d^2 / (sigma^2 + alpha^2 d^2), the variance of x_0 given x_t where data are N(m, d^2 I)."""
    at = sde.level(t)
    variance, data = at.sigma**2, (at.alpha * std) ** 2
    return variance * std**2 / (variance + data)


class DPS(PosteriorGuidance):
    """Diffusion posterior sampling: in the likelihood, x_0 is D (Chung et al. 2023, theorem 1).

    V = (sigma_y^2 + gamma r_t^2 q) I, with r_t^2 as in PiGDM and q = |H^T r|^2 / |r|^2 of each sample, the size of
    H H^T in the units of y. ``gamma`` is the inverse step size: half of it pulls twice as hard, where sigma_y is small.
    At 0.5 and above, DDIM and ancestral steps of any length are stable where the singular values of H are equal and
    entries of the data are not correlated; below, many steps are needed. Where entries are correlated, r_t^2 is less
    than the variance that they have together, and the samples diverge (docs/guidance.md). Deviations: theorem 1 has
    gamma = 0, which no practical number of steps integrates; the paper's algorithm takes a step of zeta / |r| along the
    gradient of |r|^2 beside that of the sampler, which means something else on every grid and in every unit. Here the
    pull is a term of the score, kept in bounds by widening V as Rozet and Louppe 2023 do (arXiv:2306.10574; by sigma^2
    / alpha^2, without the data's variance). The samples are biased; where singular values of H differ much, or data are
    correlated, MMPS is better.
    """

    def __init__(
        self,
        model: ScoreModel,
        operator: Operator,
        y: Tensor,
        sigma_y: float = 0.0,
        gamma: float = 0.5,
        sigma_data: float | None = None,
    ) -> None:
        super().__init__(model, operator, y, sigma_y)
        if not gamma > 0:
            raise ValueError(f"gamma = {gamma}: needs a positive number; less pulls harder, and needs more steps")
        self.gamma = gamma
        self.sigma_data = data_std(model, sigma_data)

    def weigh(self, residual, t, forwards, backwards, through):
        pulled, square = backwards(residual), inner(residual, residual)
        uncertain = self.gamma * isotropic_variance(self.sde, t, self.sigma_data)
        variance = self.sigma_y**2 * square + uncertain * inner(pulled, pulled)
        # Without a residual there is nothing to weigh, and 0 / 0 would say so with NaN.
        weight = torch.where(variance > 0, square / torch.where(variance > 0, variance, 1), 0)
        return expand(weight, residual) * residual


class PiGDM(PosteriorGuidance):
    """Pseudoinverse guidance (Song et al. 2023): Cov(x_0 | x_t) = r_t^2 I, V = sigma_y^2 I + r_t^2 H H^T.

    r_t^2 = sigma^2 d^2 / (sigma^2 + alpha^2 d^2) is exact for data N(m, d^2 I), and the paper's where d = 1, alpha = 1.
    ``sigma_data`` is d, in model units: by default the denoiser's own, and 1 where the model knows none. ``iterations``
    of conjugate gradients, which take no network; one is exact where H H^T is a multiple of the identity, as for masks,
    gray values and block means with one scale for all channels. Deviation: the paper's weight r_t^2 on the
    gradient is left out.
    """

    def __init__(
        self,
        model: ScoreModel,
        operator: Operator,
        y: Tensor,
        sigma_y: float = 0.0,
        sigma_data: float | None = None,
        iterations: int = 10,
    ) -> None:
        super().__init__(model, operator, y, sigma_y)
        self.sigma_data = data_std(model, sigma_data)
        self.iterations = check_iterations(iterations)

    def weigh(self, residual, t, forwards, backwards, through):
        uncertain = expand(isotropic_variance(self.sde, t, self.sigma_data), residual)

        def product(v: Tensor) -> Tensor:
            return self.sigma_y**2 * v + uncertain * forwards(backwards(v))

        return conjugate_gradients(product, residual, self.iterations)


class MMPS(PosteriorGuidance):
    """Moment matching: Cov(x_0 | x_t) = (sigma^2 / alpha) J, V = sigma_y^2 I + (sigma^2 / alpha) H J^T H^T.

    Rozet et al. 2024, section 4 (arXiv:2405.13712), and Boys et al. 2023; the covariance is Tweedie's formula of second
    order. Exact for Gaussian data and linear A. ``iterations`` of conjugate gradients, each a vector-Jacobian product
    of the network and none of them a network call; no matrix is formed.
    """

    def __init__(
        self,
        model: ScoreModel,
        operator: Operator,
        y: Tensor,
        sigma_y: float = 0.0,
        iterations: int = 8,
    ) -> None:
        super().__init__(model, operator, y, sigma_y)
        self.iterations = check_iterations(iterations)

    def weigh(self, residual, t, forwards, backwards, through):
        def product(v: Tensor) -> Tensor:
            return self.sigma_y**2 * v + forwards(through(v))

        return conjugate_gradients(product, residual, self.iterations)
