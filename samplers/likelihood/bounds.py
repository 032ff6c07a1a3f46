"""Variational bounds of log p(x): in continuous time, and on a grid of times as DDPM has it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samplers.calls import Watch, evaluating
from samplers.checks import NonFiniteError, as_states, check_data, check_integer, check_model, encoded
from samplers.grid import check_times, times_of_log_snr
from samplers.host import double, undisturbed, wide
from samplers.likelihood.decoder import checked_log_det, choose_decoder, gaussian_log_prob, level_log_prob, start_of
from samplers.noise.seeded import BOUNDS, item_seeds
from samplers.padding import Sizes, check_sizes, cut, filled, padded, real_counts
from samplers.protocol import GaussianProcess, transform_of


@dataclass(frozen=True)
class Bound:
    """A lower bound of log p(x); all (B,), float64, on the CPU.

    ``nats`` = ``prior`` + ``diffusion`` + ``reconstruction``, in data units: -KL(q(z_T | x) || prior), minus the
    integral or the sum of the steps' KLs, and E log p(x | z_0) with the transform's log-determinant. ``stderr`` is the
    standard error that the draws of times and noise leave; one draw cannot tell it, and reports infinity. ``nfe``
    counts network calls.
    """

    nats: Tensor
    stderr: Tensor
    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor
    nfe: Tensor


Proposal = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(u (B,) uniform in (0, 1), mean squares of x (B,)) -> times (B,) and the factors (B,) of |x - D|^2."""


@undisturbed
def variational_bound(
    model,
    x: Tensor,
    *,
    draws: int = 64,
    start: float | None = None,
    decoder: str | None = None,
    seed: int = 0,
    first: int = 0,
    sizes: Sizes | None = None,
) -> Bound:
    """The bound in continuous time (Kingma et al. 2021, eqs. 11 to 17; Song et al. 2021b, theorem 3).

    log p(x) >= -KL(q(z_T | x) || N(0, prior_std^2)) + E log p(x | z_0) - 1/2 int snr E|x - D(z, t)|^2 d log snr,
    x (B, *event) in data units. It holds for any D: p is the density of the reverse SDE that D drives, with the decoder
    behind it, and equals that of the probability-flow ODE only where D is exact.

    Times: one per draw and sample, in ``draws`` equal parts of the proposal whose density in l = log snr is
    proportional to v snr / (1 + v snr), v = |x|^2 / dim + 0.1: that is E snr |x - D|^2 of normal data of that variance.
    It is flat at high snr: for such data the estimator's variance is then that of |z|^2, 2 / (dim draws) of the square.
    It falls with snr where uniform l would waste its draws. A poor v costs variance, never bias.

    ``decoder`` is "discretized" where the transform has levels, else "gaussian". gaussian: N(x; z_0 / alpha, (sigma /
    alpha)^2), whose mean is a constant; the bound is of the density at x. discretized: p(k | z_0) proportional to
    N(z_0; alpha x_k, sigma^2) over the levels k of each dimension (Kingma et al. 2021, eqs. 8 and 9; the exact
    posterior under a flat prior, unlike differences of the normal cdf), x_k the center of the cell [k, k + 1); the
    bound is of the probability of the integers floor(x). ``start`` is the time of z_0: t_min, or for
    discretized, if later, the time when sigma / alpha is CELL_SHARE cells. ``first`` is the number of the first item
    where a set is evaluated in parts. ``sizes`` (B,) say how much of padded items is real, as in ``generate``: the
    bound is that of the real entries alone. Raises ValueError for arguments out of place and for transforms without a
    ``log_det``, NonFiniteError where the model's output is not finite.
    """
    x, real, decoder = _checked(model, x, sizes, decoder, "variational_bound")
    sde, start = model.sde, start_of(model, decoder, x.shape[1:]) if start is None else start
    low, high = (sde.log_snr(t) for t in check_times((sde.t_max, start), sde))

    def proposal(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        # The cumulative of v snr / (1 + v snr) is softplus(l + log v).
        below, above = (torch.nn.functional.softplus(end + v.log()) for end in (low, high))
        level = below + u * (above - below)
        log_snr = (level + (-torch.expm1(-level)).log() - v.log()).clamp(low, high)
        # snr / density; the density's own snr cancels.
        return sde.t_of_log_snr(log_snr), 0.5 * (above - below) * (1 / v + log_snr.exp())

    return _bound(model, x, real, proposal, (sde.t_max, start), decoder, draws, seed, first)


@undisturbed
def discrete_bound(
    model,
    x: Tensor,
    times: Tensor | int,
    *,
    draws: int = 64,
    decoder: str | None = None,
    seed: int = 0,
    first: int = 0,
    sizes: Sizes | None = None,
) -> Bound:
    """The bound -L_T - sum L_t - L_0 on a grid of times (Ho et al. 2020, eqs. 5, 7, 8 and 12 to 14).

    ``times`` (steps + 1,) fall from the prior's to that of z_0; an integer is a number of steps, equal in log snr, from
    t_max to the ``start`` of the continuous bound. With the posterior's variance, the KL of a step t -> s between
    q(z_s | z_t, x) and p(z_s | z_t) = q(z_s | z_t, x = D(z_t, t)) is (snr(s) - snr(t)) |x - D|^2 / 2 for any
    SDE (Kingma et al. 2021, eq. 13). Each draw takes one step for each sample, stratified, with probabilities
    proportional to (snr(s) - snr(t)) v / (1 + v snr(t)), the step's KL for normal data. A finer grid gives a higher
    bound of an exact model, and ``variational_bound`` at the end. Other arguments as there; the decoder differs from Ho
    et al. in its mean, z_0 / alpha, as the continuous bound has it.
    """
    x, real, decoder = _checked(model, x, sizes, decoder, "discrete_bound")
    sde = model.sde
    if isinstance(times, int):
        start = start_of(model, decoder, x.shape[1:])
        least, most = (sde.log_snr(double(t)) for t in (sde.t_max, start))
        log_snr = torch.linspace(least, most, check_integer("times", times) + 1, dtype=torch.float64, device="cpu")
        times = times_of_log_snr(sde, log_snr)
        times[-1] = start
    times = check_times(times, sde)
    snr = sde.log_snr(times).exp()
    gain = snr.diff()

    def proposal(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        shares = gain / (1 / v[:, None] + snr[:-1])
        shares = shares / shares.sum(1, keepdim=True)
        step = torch.searchsorted(shares.cumsum(1), u[:, None]).clamp(max=len(gain) - 1)
        return times[step[:, 0]], 0.5 * gain[step[:, 0]] / shares.gather(1, step)[:, 0]

    ends = (times[0].item(), times[-1].item())
    return _bound(model, x, real, proposal, ends, decoder, draws, seed, first)


def _checked(model, x: Tensor, sizes: Sizes | None, decoder: str | None, who: str) -> tuple[Tensor, Tensor | None, str]:
    """x (B, *event) with 0 where it is padded, the sizes and the decoder of a bound ``who``, after their checks."""
    check_model(model, GaussianProcess, who)
    x = as_states(x, model)
    real = check_sizes(sizes, len(x), x.shape[1:])
    x = cut(x, real)
    check_data(x, model)
    checked_log_det(model, x.shape[1:])
    return x, real, choose_decoder(decoder, model)


def _bound(
    model,
    x: Tensor,
    sizes: Tensor | None,
    proposal: Proposal,
    ends: tuple[float, float],
    decoder: str,
    draws: int,
    seed: int,
    first: int,
) -> Bound:
    for name, value, least in (("draws", draws, 1), ("seed", seed, 0), ("first", first, 0)):
        check_integer(name, value, least)
    sde, count, transform, model = model.sde, len(x), transform_of(model), padded(model, sizes)
    noise_end, data_end = (double(t) for t in ends)
    num_levels = transform.num_levels if decoder == "discretized" else None
    if num_levels:
        outside = ((x < 0) | (x >= num_levels)).flatten(1).any(1)
        if outside.any():
            raise ValueError(
                f"row {int(outside.nonzero()[0])} of x leaves [0, {num_levels}): the discretized decoder needs the "
                f"integers 0 to {num_levels - 1}, dequantized or not"
            )
        x = transform.quantize(x)
        cells = sde.sigma(data_end) / sde.alpha(data_end) * transform.cells_per_unit(x.shape[1:])
    target = cut(encoded(model, x + 0.5 if num_levels else x), sizes)
    dim = real_counts(sizes, target.shape[1:])
    square = wide(target).square().flatten(1).sum(1).cpu() / dim
    generators = [np.random.Generator(np.random.Philox(key)) for key in item_seeds(seed, BOUNDS, count, first)]

    def normal() -> Tensor:
        return filled(target.shape, sizes, lambda row, part: generators[row].standard_normal(part)).to(target)

    losses, logs = [], []
    with torch.no_grad(), evaluating(model), Watch(model, count) as counter:
        for draw in range(draws):
            u = (draw + double([g.random() for g in generators])) / draws
            t, factor = proposal(u, square + 0.1)
            error = target - model(sde.perturb(target, t, normal()), t)
            losses.append(factor.to(error) * error.flatten(1).square().sum(1))
            if num_levels:
                logs.append(cut(level_log_prob(normal(), cells, x, num_levels), sizes).flatten(1).sum(1))
    diffusion = -torch.stack(losses).cpu().double()
    bad = (~diffusion.isfinite().all(0)).nonzero().flatten().tolist()
    if bad:
        raise NonFiniteError([first + row for row in bad], "got a posterior mean that is not finite")
    mean = diffusion.mean(0)
    if num_levels:
        reconstruction = torch.stack(logs).cpu().double()
    else:
        reconstruction = torch.zeros_like(diffusion) + gaussian_log_prob(model, x, data_end, sizes)
    ratio = (sde.sigma(noise_end) / sde.prior_std()) ** 2
    prior = -0.5 * dim * ((sde.alpha(noise_end) / sde.prior_std()) ** 2 * square + ratio - 1 - ratio.log())
    return Bound(
        prior + mean + reconstruction.mean(0),
        _stratified_error(diffusion + reconstruction),
        prior,
        mean,
        reconstruction.mean(0),
        counter.nfe,
    )


def _stratified_error(values: Tensor) -> Tensor:
    """Standard error of the mean of values (draws, B), one per stratum, from the differences of neighbors.

    Var = sum of Var(y_i) / n^2; half the mean square of y_i - y_(i+1) is in expectation the variance in a stratum plus
    what is left of the strata's drift, so that the error is not understated (collapsed strata; Cochran 1977, section
    5A.12).
    """
    if len(values) == 1:
        return torch.full_like(values[0], torch.inf)
    return (0.5 * values.diff(dim=0).square().mean(0) / len(values)).sqrt()
