"""Times: where in the process the loss is asked, as distributions of training times."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sde.device import double
from sde.process.base import SDE

MEAN, STD = -1.2, 1.2
"""Those of ln(sigma / alpha) in Karras et al. 2022."""


def uniform(sde: SDE, u: Tensor) -> Tensor:
    """Uniform in t."""
    return sde.t_min + (sde.t_max - sde.t_min) * u


def _log_snr_ends(sde: SDE) -> tuple[float, float]:
    """At the data end, and where signal ends."""
    data_end, noise_end = sde.log_snr(double([sde.t_min, sde.t_signal])).tolist()
    return data_end, noise_end


def log_snr(sde: SDE, u: Tensor) -> Tensor:
    """Uniform in the log signal-to-noise ratio (Kingma et al. 2021)."""
    data_end, noise_end = _log_snr_ends(sde)
    return sde.t_of_log_snr(data_end + (noise_end - data_end) * u)


def log_normal(sde: SDE, u: Tensor, mean: float = MEAN, std: float = STD) -> Tensor:
    """ln(sigma / alpha) normal (Karras et al. 2022, table 1), cut to the range of the SDE. On the straight path, where
    that is the logit of t, it is the logit-normal distribution of t (Esser et al. 2024, eq. 19)."""
    data_end, noise_end = _log_snr_ends(sde)
    low, high = (torch.special.ndtr(double((-0.5 * end - mean) / std)) for end in (data_end, noise_end))
    log_snr = -2 * (mean + std * torch.special.ndtri(low + (high - low) * u))
    # Where the range lies far out in a tail, its ends are one number to ndtr.
    return sde.t_of_log_snr(log_snr.clamp(noise_end, data_end))


TIMES: dict[str, Callable[..., Tensor]] = {
    "uniform": uniform,
    "log_snr": log_snr,
    "log_normal": log_normal,
    "logit_normal": log_normal,
    # g^2 / sigma^2 is -d log snr / dt for every process, so its cumulative is inverted by t_of_log_snr.
    "likelihood": log_snr,
}
"""Distributions of the training times, as functions of uniform numbers u in (0, 1). log_normal and logit_normal are two
names of one, whose ``mean`` and ``std`` may be told. likelihood: the density proportional to g^2 / sigma^2 from t_min
to t_max (Song, Durkan et al. 2021), which is uniform in the log-SNR. Where the noise end is open, all but uniform end
at ``t_signal``."""


def likelihood_factor(sde: SDE, t: Tensor) -> Tensor:
    """1 / (p(t) (t_max - t_min)), p(t) = g^2 / sigma^2 / (log_snr(t_min) - log_snr(t_max)); elementwise in t."""
    data_end, noise_end = _log_snr_ends(sde)
    return (data_end - noise_end) / (sde.t_max - sde.t_min) * sde.sigma(t) ** 2 / sde.g2(t)


IMPORTANCE: dict[str, Callable[[SDE, Tensor], Tensor]] = {"likelihood": likelihood_factor}
"""Factors of the losses at times that are there to lower the variance alone: with them the expected loss, at any
weighting, is that of uniform times. The other distributions of TIMES are part of what is asked, and have none. The
weighting "likelihood" with the times "likelihood" leaves each loss the weight of "score", times a constant."""

NORMAL = ("log_normal", "logit_normal")
"""Those that take a mean and a standard deviation."""


@dataclass(frozen=True)
class Times:
    """The distribution ``name``, a key of TIMES, with ``mean`` and ``std`` of ln(sigma / alpha) where it is normal.
    Raises ValueError for an unknown name, a std that is not positive, and numbers that a distribution does not take."""

    name: str = "log_normal"
    mean: float = MEAN
    std: float = STD

    def __post_init__(self) -> None:
        if self.name not in TIMES:
            raise ValueError(f"times = {self.name!r}: needs one of {', '.join(TIMES)}")
        if not (math.isfinite(self.mean) and 0 < self.std < math.inf):
            raise ValueError(
                f"mean = {self.mean} with std = {self.std}: needs a finite mean of ln(sigma / alpha) and a positive "
                "standard deviation"
            )
        if self.name not in NORMAL and (self.mean, self.std) != (MEAN, STD):
            raise ValueError(
                f"mean = {self.mean} with std = {self.std}: the times {self.name} take neither, {' and '.join(NORMAL)} "
                "do"
            )

    @classmethod
    def of(cls, times: "str | Times") -> "Times":
        """That of a name, or itself."""
        return times if isinstance(times, Times) else cls(times)

    def __call__(self, sde: SDE, u: Tensor) -> Tensor:
        """The times of uniform numbers u in (0, 1)."""
        return TIMES[self.name](sde, u, self.mean, self.std) if self.name in NORMAL else TIMES[self.name](sde, u)

    def factor(self, sde: SDE, t: Tensor) -> Tensor:
        """The factors of losses at times t: 1 but for those of IMPORTANCE."""
        return IMPORTANCE[self.name](sde, t) if self.name in IMPORTANCE else torch.ones_like(t)
