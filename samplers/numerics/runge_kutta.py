"""An adaptive Runge-Kutta solver with a step size for each sample."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.integrate
import torch
from torch import Tensor

from samplers.checks import NonFiniteError, SampleError, check_integer
from samplers.numerics.precision import full_precision

State = tuple[Tensor, ...]
Derivative = Callable[[Tensor, Tensor, State], State]


ORDER = 5
C, A, B, E = scipy.integrate.RK45.C, scipy.integrate.RK45.A, scipy.integrate.RK45.B, scipy.integrate.RK45.E
"""The embedded pair of Dormand and Prince 1980, with scipy's coefficients: nodes, stages, weights, and weights of the
error. Its last stage is the derivative at the new point (first same as last)."""

SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0


@dataclass
class Solution:
    """``state`` at the end; ``evaluations`` and ``rejected`` steps (B,) of each sample; the signed ``step`` sizes (B,)
    that it would go on with."""

    state: State
    evaluations: Tensor
    rejected: Tensor
    step: Tensor


def check_tolerances(rtol: float, atol: float, max_nfe: int) -> None:
    """Raise ValueError for tolerances or limits that no solver can keep."""
    if not (0 < rtol < math.inf and 0 < atol < math.inf):
        raise ValueError(f"rtol = {rtol} and atol = {atol}: need positive tolerances")
    check_integer("max_nfe", max_nfe)


def _scaled_norm(parts: State, scales: State, share: Tensor | None) -> Tensor:
    """For each sample, the largest over the parts of the root mean square of part / scale, in the first part over a
    ``share`` (B,) of its entries, where it is given; float64 on the CPU."""
    norms = [(p.detach() / s.detach()).flatten(1).square().mean(1).sqrt() for p, s in zip(parts, scales, strict=True)]
    if share is not None:
        norms[0] = norms[0] / share.to(norms[0]).sqrt()
    return torch.stack(norms).amax(0).cpu().double()


def _scales(a: State, b: State, rtol: float, atol: float) -> State:
    return tuple(atol + rtol * torch.maximum(p.abs(), q.abs()) for p, q in zip(a, b, strict=True))


def _combine(base: State, step: Tensor, weights: np.ndarray, slopes: list[State]) -> State:
    """base + step * sum_j weights_j slopes_j, with a step for each sample."""
    combined = []
    for i, part in enumerate(base):
        total = sum(float(w) * slope[i] for w, slope in zip(weights, slopes, strict=True) if w)
        combined.append(part + step.to(part).view(-1, *[1] * (part.ndim - 1)) * total)
    return tuple(combined)


def _first_step(
    function: Derivative,
    start: float,
    span: float,
    state: State,
    slope: State,
    rtol: float,
    atol: float,
    share: Tensor | None,
) -> Tensor:
    """Starting step sizes (Hairer, Norsett and Wanner 1993, section II.4), one network call."""
    count = len(state[0])
    scales = _scales(state, state, rtol, atol)
    d0, d1 = _scaled_norm(state, scales, share), _scaled_norm(slope, scales, share)
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), torch.full_like(d0, 1e-6), 0.01 * d0 / d1).clamp(max=abs(span))
    sign = math.copysign(1.0, span)
    probe = _combine(state, sign * h0, np.ones(1), [slope])
    ahead = function(torch.arange(count, device="cpu"), start + sign * h0, probe)
    d2 = _scaled_norm(tuple(p - q for p, q in zip(ahead, slope, strict=True)), scales, share) / h0
    largest = torch.maximum(d1, d2)
    h1 = torch.where(largest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / largest) ** (1 / ORDER))
    return sign * torch.minimum(100 * h0, h1).clamp(max=abs(span))


def integrate(
    function: Derivative,
    state: State,
    start: float,
    end: float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 10_000,
    first_step: Tensor | None = None,
    sigma: Callable[[Tensor], Tensor] | None = None,
    share: Tensor | None = None,
) -> Solution:
    """Solve d state / dt = function(index, t, state) from ``start`` to ``end``, each sample with its own steps.

    ``state`` is a tuple of tensors with one row per sample; the error of each is measured apart, as the root mean
    square over a sample's entries relative to atol + rtol |value|, and a step is accepted where every part is below 1.
    Samples that have arrived leave the batch. ``function`` gets the rows' indices (A,), their times (A,) in float64 on
    the CPU, and their states; ``sigma``, of a time, is for messages; ``share`` (B,) is how much of the first part of
    each sample can change, which its error is averaged over. Raises FloatingPointError where a sample becomes
    non-finite, ArithmeticError where it needs more than ``max_nfe`` calls.
    """
    check_tolerances(rtol, atol, max_nfe)
    with full_precision():
        return _integrate(function, state, start, end, rtol, atol, max_nfe, first_step, sigma, share)


def _integrate(
    function: Derivative, state: State, start: float, end: float, rtol: float, atol: float, max_nfe: int,
    first_step: Tensor | None, sigma: Callable[[Tensor], Tensor] | None, share: Tensor | None,
) -> Solution:  # fmt: skip
    count, span = len(state[0]), end - start
    final = [part.clone() for part in state]
    rejected = torch.zeros(count, dtype=torch.long, device="cpu")
    steps = torch.zeros(count, dtype=torch.float64, device="cpu")
    nfe = torch.ones(count, dtype=torch.long, device="cpu")
    index, t = torch.arange(count, device="cpu"), torch.full((count,), start, dtype=torch.float64, device="cpu")
    slope = function(index, t, state)
    if first_step is None:
        h = _first_step(function, start, span, state, slope, rtol, atol, share)
        nfe += 1
    else:
        h = first_step.clone()
    held = torch.zeros(count, dtype=torch.bool, device="cpu")
    while len(index):
        landing = (h / (end - t)).abs() >= 1 - 1e-9
        trial = torch.where(landing, end - t, h)
        slopes = [slope]
        for c, row in zip(C[1:], A[1:], strict=True):
            slopes.append(function(index, t + float(c) * trial, _combine(state, trial, row[: len(slopes)], slopes)))
        new = _combine(state, trial, B, slopes)
        arrival = torch.where(landing, torch.full_like(t, end), t + trial)
        slopes.append(function(index, arrival, new))
        nfe[index] += len(slopes) - 1
        error = _combine(tuple(torch.zeros_like(p) for p in state), trial, E, slopes)
        norm = _scaled_norm(error, _scales(state, new, rtol, atol), None if share is None else share[index])
        accepted = norm <= 1
        if not norm.isfinite().all():
            raise _non_finite(norm, index, t, trial, state, sigma)
        _check_stuck(index, t, trial, nfe, accepted, max_nfe, arrived=accepted & landing)
        rejected[index] += ~accepted
        factor = (SAFETY * norm.clamp(min=1e-10) ** (-1 / ORDER)).clamp(SHRINK, GROW)
        # A step just after a rejected one does not grow at once: the rejection would come again.
        factor = torch.where(held, factor.clamp(max=1), factor)
        held = ~accepted
        # A step cut short by the end says nothing about the size that the error allows.
        h = torch.where(landing & accepted, h, trial * factor)
        steps[index] = h
        t = torch.where(accepted, arrival, t)
        state = _merge(accepted, new, state)
        slope = _merge(accepted, slopes[-1], slope)
        going = t != end
        if not going.all():
            done = (~going).nonzero().squeeze(1)
            for part, whole in zip(state, final, strict=True):
                whole[index[done].to(whole.device)] = part[done.to(part.device)]
            keep = going.nonzero().squeeze(1)
            index, t, h, held = index[keep], t[keep], h[keep], held[keep]
            state, slope = (tuple(p[keep.to(p.device)] for p in parts) for parts in (state, slope))
    return Solution(tuple(final), nfe, rejected, steps)


def _merge(accepted: Tensor, new: State, old: State) -> State:
    if accepted.all():
        return new
    return tuple(
        torch.where(accepted.to(n.device).view(-1, *[1] * (n.ndim - 1)), n, o) for n, o in zip(new, old, strict=True)
    )


def _non_finite(norm: Tensor, index: Tensor, t: Tensor, h: Tensor, state: State, sigma) -> NonFiniteError:
    i = int((~norm.isfinite()).nonzero()[0])
    level = "" if sigma is None else f", sigma = {sigma(t[i]):.4g}"
    size = state[0][i].norm()
    return NonFiniteError(
        [int(index[i])],
        f"became non-finite in the step from t = {t[i]:.6g} to {t[i] + h[i]:.6g} (|x| = {size:.4g}{level}): "
        "the model's output is not finite there",
    )


def _check_stuck(
    index: Tensor, t: Tensor, h: Tensor, nfe: Tensor, accepted: Tensor, max_nfe: int, arrived: Tensor
) -> None:
    stuck = ~arrived & ((nfe[index] >= max_nfe) | (~accepted & (h.abs() < 1e-12)))
    if stuck.any():
        i = int(stuck.nonzero()[0])
        raise SampleError(
            [int(index[i])],
            f"took {int(nfe[index[i]])} calls and is at t = {t[i]:.6g} with steps of "
            f"{h[i].abs():.3g}: loosen rtol and atol, or raise max_nfe = {max_nfe}",
        )
