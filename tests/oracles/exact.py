"""Score models in closed form: the oracles that most tests ask."""

import math

import torch
from torch import Tensor

from sde import SDE, ScoreModel
from sde.process.coefficients import expand


class GaussianMixture(ScoreModel):
    """Data sum_k w_k N(means_k, std^2 I): at every t a mixture again, so D, the score and the density are exact."""

    def __init__(self, sde: SDE, means: Tensor, std: float, weights: Tensor | None = None, transform=None) -> None:
        super().__init__(sde, transform)
        self.register_buffer("means", torch.as_tensor(means))
        self.std = std
        self.event = tuple(self.means.shape[1:])
        weights = torch.ones(len(self.means)) if weights is None else weights
        self.register_buffer("log_weights", (weights / weights.sum()).log().to(self.means))

    def moments(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and the components' variance at t, of shape () or (B, 1)."""
        flat = x.flatten(1)
        alpha = expand(self.sde.alpha(t), flat)
        return alpha, (alpha * self.std) ** 2 + expand(self.sde.sigma(t), flat) ** 2

    def component_logits(self, x: Tensor, t: Tensor) -> Tensor:
        """log w_k N(x; alpha means_k, var) up to the normalizer of the Gaussians: (B, K)."""
        alpha, var = self.moments(t, x)
        flat, means = x.flatten(1), self.means.flatten(1)
        squares = flat.square().sum(1, keepdim=True) - 2 * alpha * flat @ means.T + alpha**2 * means.square().sum(1)
        return self.log_weights - squares / (2 * var)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, var = self.moments(t, x)
        mean = self.component_logits(x, t).softmax(1) @ self.means.flatten(1)
        flat = mean + alpha * self.std**2 / var * (x.flatten(1) - alpha * mean)
        return flat.reshape(x.shape)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """Exact log p_t(x) in model units."""
        _, var = self.moments(t, x)
        normalizer = 0.5 * x[0].numel() * torch.log(2 * math.pi * var.squeeze(-1))
        return self.component_logits(x, t).logsumexp(1) - normalizer

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n exact samples of the data, in model units; a generator of the CPU, wherever the model is."""
        which = torch.multinomial(self.log_weights.cpu().exp(), n, replacement=True, generator=generator)
        noise = torch.randn((n, *self.event), generator=generator, dtype=self.means.dtype)
        return self.means[which.to(self.means.device)] + self.std * noise.to(self.means.device)


class Gaussian(GaussianMixture):
    """Data N(mean, std^2 I); its probability flow is affine and known exactly."""

    def __init__(self, sde: SDE, mean: Tensor, std: float, transform=None) -> None:
        super().__init__(sde, torch.as_tensor(mean)[None], std, transform=transform)

    def flow(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The exact solution of the probability-flow ODE from t to s: standardized coordinates stay."""
        mean = self.means[0]
        (a, v), (b, w) = (
            (self.sde.alpha(u), (self.sde.alpha(u) * self.std) ** 2 + self.sde.sigma(u) ** 2) for u in (t, s)
        )
        return b * mean + (w / v).sqrt() * (x - a * mean)


class GaussianDenoiser(Gaussian):
    """The same where a denoiser is expected: it takes a condition and goes by none."""

    sigma_data, num_classes = 0.5, None

    def forward(self, x: Tensor, t: Tensor, cond=None) -> Tensor:
        return super().forward(x, t)


class Uniform(ScoreModel):
    """Data uniform on [low, high) in every coordinate: x_0 given x is a truncated normal in each, and p_t a difference
    of normal distribution functions."""

    def __init__(self, sde: SDE, low: float = -1.0, high: float = 1.0, transform=None) -> None:
        super().__init__(sde, transform)
        self.low, self.high = low, high
        self.register_buffer("like", torch.zeros(1, dtype=torch.float64))

    def ends(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """alpha, sigma, and the interval's ends as seen from x, in units of sigma / alpha."""
        alpha, sigma = expand(self.sde.alpha(t), x), expand(self.sde.sigma(t), x)
        return alpha, sigma, (alpha * self.low - x) / sigma, (alpha * self.high - x) / sigma

    def log_mass(self, a: Tensor, b: Tensor) -> Tensor:
        """log(Phi(b) - Phi(a)), by the tail that keeps its digits."""
        flip = a > 0
        low, high = torch.where(flip, -b, a), torch.where(flip, -a, b)
        upper, lower = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
        return upper + torch.log(-torch.expm1(lower - upper))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma, a, b = self.ends(x, t)
        log_phi = -0.5 * (torch.stack([a, b]) ** 2 + math.log(2 * math.pi)) - self.log_mass(a, b)
        return (x + sigma * (log_phi[0].exp() - log_phi[1].exp())) / alpha

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """Exact log p_t(x) in model units."""
        alpha, _, a, b = self.ends(x, t)
        return (self.log_mass(a, b) - (alpha * (self.high - self.low)).log()).flatten(1).sum(1)
