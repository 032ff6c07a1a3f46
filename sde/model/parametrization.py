"""Parametrizations: what the output of a denoiser's network means."""

from collections.abc import Callable
from dataclasses import dataclass

from sde.process.level import Coefficient

Coefficients = tuple[Coefficient, Coefficient, Coefficient]
Formula = Callable[[Coefficient, Coefficient, float], tuple[Coefficient, Coefficient]]

OUTPUTS: dict[str, Formula] = {
    # (alpha a, sigma s, sigma_data d) -> (g, h) of F = g E[z | x] + h D
    "noise": lambda a, s, d: (1.0, 0.0),
    "denoised": lambda a, s, d: (0.0, 1.0),
    "v": lambda a, s, d: (a * (a**2 + s**2) ** -0.5, -s * (a**2 + s**2) ** -0.5),
    "score": lambda a, s, d: (-1 / s, 0.0),
    "scaled_score": lambda a, s, d: (-1.0, 0.0),
    "edm": lambda a, s, d: (-a * d * (s**2 + (a * d) ** 2) ** -0.5, s / d * (s**2 + (a * d) ** 2) ** -0.5),
    "flow": lambda a, s, d: (1.0, -1.0),
}
"""What the network's output F means. noise: z; denoised: x_0; v: (alpha z - sigma x_0) / sqrt(alpha^2 + sigma^2)
(Salimans and Ho 2022, for processes of any variance); score: grad log p_t; scaled_score: sigma grad log p_t; edm:
Karras et al. 2022, eq. 7, written for any alpha; flow: z - x_0, the velocity of the straight path (Lipman et al. 2023;
Liu et al. 2023), on any process."""

FINITE_WITHOUT_SIGNAL = tuple(name for name, formula in OUTPUTS.items() if formula(0.0, 1.0, 1.0)[1])
"""Those that tell D where alpha = 0, at an open noise end."""


@dataclass(frozen=True)
class Parametrization:
    """The coefficients of D and of the noise that an output F = g E[z | x] + h D makes with x = sigma E[z | x] +
    alpha D. g and h have opposite signs, so that alpha g - sigma h is no difference and keeps its digits."""

    formula: Formula

    def __call__(self, alpha: Coefficient, sigma: Coefficient, sigma_data: float) -> Coefficients:
        """c_skip, c_out and c_in of D = c_skip x + c_out F(c_in x); c_in gives the network inputs of unit variance."""
        g, h = self.formula(alpha, sigma, sigma_data)
        whole = alpha * g - sigma * h
        return g / whole, -sigma / whole, (sigma**2 + (alpha * sigma_data) ** 2) ** -0.5

    def noise(self, alpha: Coefficient, sigma: Coefficient, sigma_data: float) -> tuple[Coefficient, Coefficient]:
        """p and q of E[z | x] = p x + q F. As (1 - alpha c_skip) / sigma, p would cancel where sigma is small."""
        g, h = self.formula(alpha, sigma, sigma_data)
        whole = alpha * g - sigma * h
        return -h / whole, alpha / whole


PARAMETRIZATIONS: dict[str, Callable[[Coefficient, Coefficient, float], Coefficients]] = {
    name: Parametrization(formula) for name, formula in OUTPUTS.items()
}
"""(alpha, sigma, sigma_data) -> (c_skip, c_out, c_in) of D = c_skip x + c_out F(c_in x), of each of OUTPUTS."""


def noise_coefficients(
    name: str, alpha: Coefficient, sigma: Coefficient, sigma_data: float
) -> tuple[Coefficient, Coefficient]:
    """p and q of E[z | x] = p x + q F for a key of PARAMETRIZATIONS; of a plain function there by its c_skip and c_out,
    which is as exact wherever alpha and sigma are floats."""
    own = PARAMETRIZATIONS[name]
    if isinstance(own, Parametrization):
        return own.noise(alpha, sigma, sigma_data)
    c_skip, c_out, _ = own(alpha, sigma, sigma_data)
    return (1 - alpha * c_skip) / sigma, -alpha * c_out / sigma
