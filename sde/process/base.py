"""The forward process: x_t = alpha(t) x_0 + sigma(t) z, as an SDE dx = f(t) x dt + sqrt(g2(t)) dw.

Two formulas define a process, ``log_alpha`` and ``sigma``; drift, diffusion and signal-to-noise ratio follow from them.
``log_alpha``, not alpha, is the primitive: in float32, 1 - alpha^2 loses its digits near the data end, expm1 does not.
"""

import abc
import math
from collections.abc import Callable
from functools import cached_property
from inspect import isfunction
from typing import Any

import torch
from torch import Tensor

from sde.device import as_tensor, double
from sde.process.coefficients import expand
from sde.process.elementwise import ELEMENTWISE, LEAST_LOG_SNR, takes_numbers, within_range
from sde.process.level import Grid, Level, level_at

ZERO_SIGNAL_CUT = -2 * math.log(1e3)
"""The log-SNR where a process whose alpha reaches zero is cut: its score says nothing about data without signal."""


def derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """The derivative of an elementwise function, by forward-mode differentiation; same shape as t."""
    return torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]


class SDE(abc.ABC):
    """A diffusion process with data at ``t_min`` and noise at ``t_max``. Every method is elementwise in t.

    A process of your own is a subclass with two methods, ``log_alpha`` and ``sigma``; the log signal-to-noise ratio
    must fall strictly from ``t_min`` to ``t_max``. Where alpha(t_max) = 0, ``t_max`` moves to alpha / sigma = 1e-3,
    unless the process says that its noise end is open, ``open_end``: then it begins there, at D = E[x_0].
    Make the subclass a frozen dataclass when it has parameters.
    """

    t_min: float = 1e-3
    t_max: float = 1.0

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ELEMENTWISE:
            method = vars(cls).get(name)
            if isfunction(method):
                method = within_range(method) if name == "t_of_log_snr" else method
                setattr(cls, name, takes_numbers(method))

    def __init__(self) -> None:
        self.__post_init__()

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < self.t_max:
            raise ValueError(f"t_min = {self.t_min} and t_max = {self.t_max}: needs 0 <= t_min < t_max")
        if self.open_end:
            if self.alpha(double(self.t_max)) != 0:
                raise ValueError(f"t_max = {self.t_max}: an open noise end is where alpha = 0, and here it is not")
        # Rounding can leave a vanishing alpha at 1e-17 instead of zero.
        elif self.log_snr(double(self.t_max)) <= LEAST_LOG_SNR:
            cut = self._bisect_log_snr(double(ZERO_SIGNAL_CUT))
            object.__setattr__(self, "t_max", cut.item())
        ends = self.log_snr(double([self.t_min, self.t_max])).tolist()
        if not (math.isfinite(ends[0]) and math.isfinite(ends[1]) and ends[0] > ends[1]):
            raise ValueError(
                f"t_min = {self.t_min} and t_max = {self.t_max} give a log signal-to-noise ratio of {ends[0]:g} and "
                f"{ends[1]:g}: it must be finite and fall; move t_min above 0, or t_max down"
            )

    @property
    def open_end(self) -> bool:
        """Whether the noise end is open, alpha(t_max) = 0, which a process has to say: x is pure noise there, D is
        E[x_0], and f and g2 are infinite."""
        return False

    @property
    def label(self) -> tuple[str, float]:
        """What score_sde and diffusers tell networks on this process, as quantity and scale of ``sde.NoiseInput``: 999
        times t (Song et al. 2021, code)."""
        return "time", 999.0

    @cached_property
    def t_finite(self) -> float:
        """The last time at which f and g2 are finite: ``t_max``; of an open process that of the largest noise level,
        where x is that at ``t_max`` to the rounding of float32."""
        return self.t_of_log_snr(double((1 - 1e-9) * LEAST_LOG_SNR)).item() if self.open_end else self.t_max

    @cached_property
    def t_signal(self) -> float:
        """Where grids of noise levels begin: ``t_max``; of an open process the time of alpha / sigma = 1e-3, to which
        they take one step from there."""
        return self.t_of_log_snr(double(ZERO_SIGNAL_CUT)).item() if self.open_end else self.t_max

    @property
    def log_snr_ends(self) -> tuple[float, float]:
        """The log signal-to-noise ratio at ``t_min``, the largest, and at ``t_max``."""
        most, least = self.log_snr(double([self.t_min, self.t_max])).tolist()
        return most, least

    @abc.abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha(t), the logarithm of the factor of the data."""

    @abc.abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """sigma(t), the standard deviation of the noise."""

    @takes_numbers
    def alpha(self, t: Tensor) -> Tensor:
        """alpha(t) = exp(log_alpha(t))."""
        return self.log_alpha(t).exp()

    @takes_numbers
    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2), strictly decreasing in t (Kingma et al. 2021, eq. 4), down to that of
        LARGEST_NOISE_LEVEL."""
        return (2 * (self.log_alpha(t) - self.sigma(t).log())).clamp(min=LEAST_LOG_SNR)

    @takes_numbers
    def noise_level(self, t: Tensor) -> Tensor:
        """sigma / alpha, strictly increasing in t: the sigma of Karras et al. 2022."""
        return (-0.5 * self.log_snr(t)).exp()

    @takes_numbers
    def alpha_rate(self, t: Tensor) -> Tensor:
        """d alpha / dt = f alpha, finite at an open noise end, too."""
        t = self._before_end(t)
        return self.f(t) * self.alpha(t)

    @takes_numbers
    def sigma_rate(self, t: Tensor) -> Tensor:
        """d sigma / dt, finite at an open noise end, too."""
        return derivative(self.sigma, self._before_end(t))

    @takes_numbers
    def f(self, t: Tensor) -> Tensor:
        """Drift factor f(t) = d log alpha / dt."""
        return derivative(self.log_alpha, t)

    @takes_numbers
    def g2(self, t: Tensor) -> Tensor:
        """Squared diffusion g^2(t) = d sigma^2 / dt - 2 f sigma^2 (Kingma et al. 2021, eq. 20)."""
        return derivative(lambda u: self.sigma(u) ** 2, t) - 2 * self.f(t) * self.sigma(t) ** 2

    @takes_numbers
    @within_range
    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The time of a log signal-to-noise ratio, in [t_min, t_max]; float64 where the device has that, by
        bisection unless overridden. Raises ValueError for one beyond ``log_snr_ends``, by more than rounding."""
        return self._bisect_log_snr(log_snr)

    @takes_numbers
    def t_of_noise_level(self, noise_level: Tensor) -> Tensor:
        """The time of a noise level sigma / alpha, as ``t_of_log_snr`` finds it."""
        return self.t_of_log_snr(-2 * noise_level.log())

    def level(self, t: Tensor) -> Level:
        """The values of these methods at t: floats of one time on the CPU, else tensors of the shape of t."""
        return level_at(self, t)

    def points(self, times: Tensor) -> list[Tensor]:
        """The times (k,) of a run as 0-d tensors, whose levels are computed all at once and kept with them."""
        return Grid(times).points()

    def _before_end(self, t: Tensor) -> Tensor:
        """t, and of an open noise end the last time before it, where 0 times infinity is a number."""
        last = min(self.t_finite, self.t_max * (1 - torch.finfo(t.dtype).eps))
        return t.clamp(max=last) if self.open_end else t

    def _bisect_log_snr(self, log_snr: Tensor) -> Tensor:
        target = log_snr.double()
        low, high = torch.full_like(target, self.t_min), torch.full_like(target, self.t_max)
        for _ in range(60):
            middle = (low + high) / 2
            noisy = self.log_snr(middle) < target
            low, high = torch.where(noisy, low, middle), torch.where(noisy, middle, high)
        return (low + high) / 2

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """A draw of q(x_t | x_0) = N(alpha x_0, sigma^2): alpha x_0 + sigma z; x0, z (B, *event), t () or (B,)."""
        x0, z = as_tensor(x0), as_tensor(z)
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * z

    def prior_std(self) -> float:
        """Standard deviation of the prior N(0, prior_std^2), sigma(t_max)."""
        return self.sigma(double(self.t_max)).item()

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """Log-density of the prior in nats, summed over the event; x (B, *event) -> (B,)."""
        x, std = as_tensor(x), self.prior_std()
        dim = x[0].numel()
        return -0.5 * (x.flatten(1) / std).square().sum(1) - dim * (math.log(std) + 0.5 * math.log(2 * math.pi))

    # What is asked of every process, Gaussian or not: samplers.protocol.Process. ``noise`` is like torch.randn_like.

    def state_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype of states for a model that computes in ``dtype``: the same."""
        return dtype

    def sample_prior(self, like: Tensor, noise: Callable[[Tensor], Tensor], t: Tensor | None = None) -> Tensor:
        """A draw of N(0, sigma(t)^2) in the shape, dtype and device of ``like`` (B, *event); t is 0-d, ``t_max`` unless
        told otherwise."""
        return noise(like) * self.sigma(double(self.t_max) if t is None else t)

    def noised(self, x0: Tensor, t: Tensor, noise: Callable[[Tensor], Tensor]) -> Tensor:
        """A draw of q(x_t | x_0), as ``perturb`` from noise of x0's shape."""
        return self.perturb(x0, t, noise(x0))

    def constrain(self, noise: Tensor) -> Tensor:
        """Normal numbers as this process may have them: any."""
        return noise

    def last_call(self, model: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, noise: object) -> Tensor:
        """What a run ends with at its last time t: the posterior mean D(x, t). It draws nothing."""
        return model(x, t)

    def valid(self, x: Tensor) -> Tensor:
        """Which rows of x (B, *event) are states, (B,) bool: those that are finite."""
        return x.isfinite().flatten(1).all(1)

    def describe(self, t: Tensor) -> str:
        """A 0-d time as messages name it."""
        return f"t = {t:.4g}, sigma = {self.sigma(t):.4g}"


def with_signal(sde: SDE, t: Tensor) -> Tensor:
    """t, and of an open noise end ``t_signal``: what multiplies a derivative of D by sigma^2 / alpha is asked there, at
    a level from which x at ``t_max`` does not differ by more than 1e-3 of the data."""
    return t.clamp(max=sde.t_signal) if getattr(sde, "open_end", False) else t


def check_time(sde: SDE, t: Tensor) -> None:
    """Raise TypeError unless t is a tensor of floats, ValueError where it lies outside the process. Times on a device
    other than the CPU, and those of a graph that is being traced, are not looked at: reading them would wait."""
    if not isinstance(t, Tensor) or not t.is_floating_point():
        kind = t.dtype if isinstance(t, Tensor) else type(t).__name__
        raise TypeError(f"t is {kind}: needs a tensor of floats, times from {sde.t_min:g} to {sde.t_max:g}")
    if t.device.type != "cpu" or not t.numel() or torch.compiler.is_compiling():
        return
    low, high = (t.item(),) * 2 if t.ndim == 0 else (x.item() for x in t.aminmax())
    slack = 1e-6 * (sde.t_max - sde.t_min)
    if not (low >= sde.t_min - slack and high <= sde.t_max + slack):
        raise ValueError(
            f"t = {high if high > sde.t_max + slack else low:g}: needs times from t_min = {sde.t_min:g} to t_max = "
            f"{sde.t_max:g}; of a noise level r = sigma / alpha, the time is sde.t_of_noise_level(r)"
        )
