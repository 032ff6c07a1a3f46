"""Data to their latents and back, along the probability-flow ODE; spherical interpolation between latents."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.calls import Watch, evaluating
from samplers.checks import as_states, check_data, check_model, check_state, encoded, tensor_like
from samplers.host import as_tensor, double, placed, undisturbed, wide
from samplers.ode import ODE
from samplers.padding import Sizes, check_sizes, cut, padded
from samplers.protocol import GaussianProcess, transform_of


@dataclass
class Encoded:
    """``latent`` (B, *inner), x at the noise end, in model units: near N(0, prior_std^2) for data the model knows;
    ``nfe`` (B,), network calls counted for each item."""

    latent: Tensor
    nfe: Tensor


@dataclass
class Decoded:
    """``x`` (B, *event) in data units, quantized where the data are; ``values`` (B, *event), the same before that: for
    quantized data in [0, num_levels), integers being cells [x, x + 1); ``nfe`` (B,), network calls of each item."""

    x: Tensor
    values: Tensor
    nfe: Tensor


@undisturbed
@torch.no_grad()
def encode(
    model,
    x: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 10_000,
    offset: float | Tensor = 0.5,
    sizes: Sizes | None = None,
) -> Encoded:
    """x (B, *event) in data units to its latent, by dx / dt = f x - g^2 score / 2 from t_min to t_max (Song et al.
    2021, section 4.3 and appendix D.3).

    x is taken as the state at t_min, so that ``decode`` is the inverse, to the tolerances. A quantized x stands for the
    cell [x, x + 1), and ``offset`` says which point of it is encoded: 0.5 the middle, from which ``decode`` finds the
    integer again; 0 takes values that are continuous already as they are. Continuous data have no offset. Each item
    has steps of its own: its latent does not depend on its batch-mates. ``sizes`` (B,) say how much of padded items is
    real, as in ``generate``: latents are 0 elsewhere. Raises ValueError and TypeError for bad
    input, FloatingPointError where an item becomes non-finite, ArithmeticError beyond ``max_nfe`` calls.
    """
    check_model(model, GaussianProcess, "encode")
    like = tensor_like(model)
    x = as_states(x, model)
    x = placed(x if x.is_floating_point() else x.to(like.dtype), like.device)
    real = check_sizes(sizes, len(x), x.shape[1:])
    x = cut(x, real)
    check_data(x, model)
    transform = transform_of(model)
    z = cut(encoded(model, transform.dequantize(x, offset)), real)
    latent, nfe = _flow(padded(model, real), z, model.sde.t_min, model.sde.t_max, rtol, atol, max_nfe)
    return Encoded(latent, nfe)


@undisturbed
@torch.no_grad()
def decode(
    model,
    latent: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 10_000,
    denoise: bool = False,
    sizes: Sizes | None = None,
) -> Decoded:
    """Latents (B, *inner) in model units back to data units, by the same ODE from t_max to t_min.

    ``denoise`` returns the posterior mean at t_min, as samplers do, by one more call: latents drawn from the prior
    become the samples of the ``ode`` sampler. It is no inverse of ``encode``, which knows nothing of that last step.
    Of padded items, by their ``sizes`` (B,), what is not real is 0. Raises as ``encode`` does.
    """
    check_model(model, GaussianProcess, "decode")
    latent = as_states(latent, model, "latent")
    check_state(latent, model, "latent")
    real = check_sizes(sizes, len(latent), latent.shape[1:])
    latent = cut(latent.to(tensor_like(model).device), real)
    z, nfe = _flow(padded(model, real), latent, model.sde.t_max, model.sde.t_min, rtol, atol, max_nfe, denoise=denoise)
    transform = transform_of(model)
    values = cut(transform.decode(z), real)
    return Decoded(cut(transform.quantize(values), real), values, nfe)


def _flow(
    model, z: Tensor, start: float, end: float, rtol: float, atol: float, max_nfe: int, denoise: bool = False
) -> tuple[Tensor, Tensor]:
    """The probability flow of z (B, *inner) from time start to time end, and the network calls (B,) it took."""
    t, s = (double(time) for time in (start, end))
    with evaluating(model), Watch(model, len(z)) as counter:
        z, _ = ODE(rtol, atol, max_nfe).step(model, z, t, s, None)
        if denoise:
            z = model(z, s)
    return z, counter.nfe


def slerp(a: Tensor, b: Tensor, weights: Tensor | Sequence[float]) -> Tensor:
    """Points on the arcs from a to b, both (B, *event), at ``weights`` (F,) from 0 to 1: (B, F, *event).

    With the unit vectors p = a / |a| and q = b / |b| of whole events, their angle theta, and the unit vector r that is
    perpendicular to p in the plane of both: ((1 - w) |a| + w |b|) (cos(w theta) p + sin(w theta) r). This is the
    formula of Shoemake (1985) that White (2016) applied to latents, sin((1 - w) theta) p + sin(w theta) q over
    sin(theta), written without the division, so that it holds for any angle; and unlike his, it interpolates lengths
    linearly, where his grow without limit for latents of unequal length that are nearly opposite. Equal lengths are
    kept, as Gaussian latents need it, whose straight mixtures are too short; ends are exact. Exactly opposite ones are
    joined by an arc through the axis that is the most perpendicular (in one dimension, through zero); a vector of
    length zero by a straight line. Computed in float64, returned in the dtype of a. Raises ValueError for shapes that
    differ and weights outside [0, 1].
    """
    a, b = as_tensor(a, "a"), as_tensor(b, "b")
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"slerp between shapes {tuple(a.shape)} and {tuple(b.shape)}: needs one (batch, *event)")
    weights = torch.as_tensor(weights, dtype=torch.float64, device="cpu")
    if weights.ndim != 1 or not ((weights >= 0) & (weights <= 1)).all():
        raise ValueError(f"weights = {weights.tolist()}: needs a list of numbers from 0 to 1")
    u, v = wide(a.flatten(1)), wide(b.flatten(1))
    weights = weights.to(u.device)
    u_norm, v_norm = u.norm(dim=1, keepdim=True), v.norm(dim=1, keepdim=True)
    p, q = _unit(u, u_norm), _unit(v, v_norm)
    across = _perpendicular(q, p)
    size = across.norm(dim=1, keepdim=True)
    # Twice: what is left of nearly parallel vectors is rounding, and not perpendicular yet.
    theta, across = torch.atan2(size, (p * q).sum(1, keepdim=True)), _perpendicular(across, p)
    axis = torch.zeros_like(p).scatter_(1, p.abs().argmin(1, keepdim=True), 1.0)
    across = torch.where(size > 1e-12, across, _perpendicular(axis, p))
    across = _unit(across, across.norm(dim=1, keepdim=True))
    w = weights[None, :, None]
    angle, length = w * theta[:, None], (1 - w) * u_norm[:, None] + w * v_norm[:, None]
    arc = length * (angle.cos() * p[:, None] + angle.sin() * across[:, None])
    straight = (1 - w) * u[:, None] + w * v[:, None]
    points = torch.where(((u_norm > 0) & (v_norm > 0))[:, None], arc, straight)
    points = torch.where(w == 0, u[:, None], torch.where(w == 1, v[:, None], points))
    return points.to(a).view(len(a), len(weights), *a.shape[1:])


def _unit(x: Tensor, norm: Tensor) -> Tensor:
    return x / torch.where(norm > 0, norm, 1.0)


def _perpendicular(x: Tensor, unit: Tensor) -> Tensor:
    """x (B, D) less its part along unit (B, D)."""
    return x - (x * unit).sum(1, keepdim=True) * unit
