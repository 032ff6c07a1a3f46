"""Parametrizations: what the output of a denoiser's network means."""

from collections.abc import Callable

from sde.process.level import Coefficient

Coefficients = tuple[Coefficient, Coefficient, Coefficient]


PARAMETRIZATIONS: dict[str, Callable[[Coefficient, Coefficient, float], Coefficients]] = {
    # (alpha a, sigma s, sigma_data d) -> (c_skip, c_out, c_in) of D = c_skip x + c_out F(c_in x)
    "noise": lambda a, s, d: (1 / a, -s / a, (s**2 + (a * d) ** 2) ** -0.5),
    "denoised": lambda a, s, d: (0.0, 1.0, (s**2 + (a * d) ** 2) ** -0.5),
    "v": lambda a, s, d: (a / (a**2 + s**2), -s * (a**2 + s**2) ** -0.5, (s**2 + (a * d) ** 2) ** -0.5),
    "score": lambda a, s, d: (1 / a, s**2 / a, (s**2 + (a * d) ** 2) ** -0.5),
    "scaled_score": lambda a, s, d: (1 / a, s / a, (s**2 + (a * d) ** 2) ** -0.5),
    "edm": lambda a, s, d: (
        a * d**2 / (s**2 + (a * d) ** 2),
        s * d * (s**2 + (a * d) ** 2) ** -0.5,
        (s**2 + (a * d) ** 2) ** -0.5,
    ),
    "flow": lambda a, s, d: (1 / (a + s), -s / (a + s), (s**2 + (a * d) ** 2) ** -0.5),
}
"""What the network's output F means. noise: z; denoised: x_0; v: (alpha z - sigma x_0) / sqrt(alpha^2 + sigma^2)
(Salimans and Ho 2022, for processes of any variance); score: grad log p_t; scaled_score: sigma grad log p_t; edm:
Karras et al. 2022, eq. 7, written for any alpha; flow: z - x_0, the velocity of the straight path (Lipman et al. 2023;
Liu et al. 2023), on any process. c_in gives the network inputs of unit variance."""


NOISE: dict[str, Callable[[Coefficient, Coefficient, float], tuple[Coefficient, Coefficient]]] = {
    # (a, s, d) -> (p, q) of E[z | x] = p x + q F
    "noise": lambda a, s, d: (0.0, 1.0),
    "denoised": lambda a, s, d: (1 / s, -a / s),
    "v": lambda a, s, d: (s / (a**2 + s**2), a * (a**2 + s**2) ** -0.5),
    "score": lambda a, s, d: (0.0, -s),
    "scaled_score": lambda a, s, d: (0.0, -1.0),
    "edm": lambda a, s, d: (s / (s**2 + (a * d) ** 2), -a * d * (s**2 + (a * d) ** 2) ** -0.5),
    "flow": lambda a, s, d: (1 / (a + s), a / (a + s)),
}
"""What the same outputs say of the noise, in closed form: written as (1 - alpha c_skip) / sigma, p cancels where sigma
is small."""


FINITE_WITHOUT_SIGNAL = ("denoised", "v", "edm", "flow")
"""Those whose D is finite where alpha = 0, at an open noise end."""


def noise_coefficients(
    name: str, alpha: Coefficient, sigma: Coefficient, sigma_data: float
) -> tuple[Coefficient, Coefficient]:
    """p and q of E[z | x] = p x + q F for a key of PARAMETRIZATIONS; of one without a form in NOISE by its c_skip and
    c_out, which is as exact wherever alpha and sigma are floats."""
    if name in NOISE:
        return NOISE[name](alpha, sigma, sigma_data)
    c_skip, c_out, _ = PARAMETRIZATIONS[name](alpha, sigma, sigma_data)
    return (1 - alpha * c_skip) / sigma, -alpha * c_out / sigma
