"""The log-likelihood of the flow, by the instantaneous change of variables along the probability-flow ODE."""

from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from samplers.calls import Watch, evaluating, part
from samplers.checks import SampleError, as_states, check_data, check_integer, check_model, check_state, encoded
from samplers.first_step import t_finite
from samplers.host import undisturbed
from samplers.likelihood.decoder import checked_log_det
from samplers.likelihood.divergence import draw_probes, exact_divergence, probed_divergence
from samplers.numerics.runge_kutta import integrate
from samplers.padding import Sizes, check_sizes, cut, padded, real_counts
from samplers.protocol import GaussianProcess


@dataclass
class LogLikelihood:
    """``nats`` (B,), log-density in data units; ``stderr`` (B,), what the probes leave open (0 for the exact trace);
    ``nfe`` (B,), counted network calls; ``rejected`` (B,), steps of the solver that were; ``latent`` (B, *inner), x at
    the noise end, in model units."""

    nats: Tensor
    stderr: Tensor
    nfe: Tensor
    rejected: Tensor
    latent: Tensor


def _check_density(model, guided: bool) -> None:
    """Raise ValueError for guided models, unless ``guided``, and for what is no score model of a Gaussian process."""
    if not (guided or getattr(model, "normalized", True)):
        raise ValueError("a guided model is not a normalized density: pass guided=True to integrate it all the same")
    check_model(model, GaussianProcess, "log_likelihood")


@undisturbed
def log_likelihood(
    model,
    x: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    probes: int | None = None,
    seed: int = 0,
    max_nfe: int = 10_000,
    first: int = 0,
    guided: bool = False,
    probe_kind: str = "rademacher",
    differentiable: bool = False,
    at_once: int = 64,
    sizes: Sizes | None = None,
) -> LogLikelihood:
    """log p(x) of x (B, *event) in data units (Song et al. 2021, appendix D.2, eq. 39).

    log p_0(x) = log p_T(x_T) + integral of div velocity dt, from t_min to t_max. With ``probes`` None it takes the
    exact trace (one vector-Jacobian product per dimension, the network called once); an integer averages that many
    probes, Rademacher or "gaussian" ones by ``probe_kind``, whose spread gives ``stderr``; one probe cannot tell it,
    and reports infinity. Products are taken for ``at_once`` rows per backward pass, which bounds the memory. x and log
    p have error norms of their own, log p in nats per dimension, so that neither hides in the other. A sample's value
    does not depend on its batch-mates; ``first`` is the number of the first item where a set is evaluated in parts. The
    density is that of x_t at t_min. With ``differentiable`` gradients reach x and the model's parameters through the
    solver's accepted steps, at the memory of all of them, and the model stays in the mode it is in. ``sizes`` (B,) say
    how much of padded items is real, as in ``generate``: the density is that of the real entries alone. Raises
    ValueError for guided models, which are no normalized densities, unless ``guided``, and for transforms without a
    ``log_det``.
    """
    _check_density(model, guided)
    x = as_states(x, model)
    real = check_sizes(sizes, len(x), x.shape[1:])
    x = cut(x, real)
    check_data(x, model)
    log_det = checked_log_det(model, x.shape[1:], real)
    found = state_log_likelihood(
        model, cut(encoded(model, x), real), rtol=rtol, atol=atol, probes=probes, seed=seed, max_nfe=max_nfe,
        first=first, guided=guided, probe_kind=probe_kind, differentiable=differentiable, at_once=at_once, sizes=real,
    )  # fmt: skip
    found.nats = found.nats + (log_det.to(found.nats) if isinstance(log_det, Tensor) else log_det)
    return found


@undisturbed
def state_log_likelihood(
    model,
    z: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    probes: int | None = None,
    seed: int = 0,
    max_nfe: int = 10_000,
    first: int = 0,
    guided: bool = False,
    probe_kind: str = "rademacher",
    differentiable: bool = False,
    at_once: int = 64,
    sizes: Sizes | None = None,
) -> LogLikelihood:
    """log p(z) of states z (B, *inner) in model units, whatever transform the model has: ``log_likelihood`` without the
    log-determinant, with its arguments. Raises ValueError for guided models, unless ``guided``."""
    _check_density(model, guided)
    check_state(z, model, "z")
    if any(tensor.is_inference() for tensor in chain(model.parameters(), model.buffers())):
        raise ValueError(
            "the model was made in torch.inference_mode, and the likelihood takes derivatives of it: make or load it "
            "outside"
        )
    real = check_sizes(sizes, len(z), z.shape[1:])
    model = padded(model, real)
    if probes is not None:
        check_integer("probes", probes)
    directions = None
    if probes is not None:
        directions = draw_probes(tuple(z.shape), probes, seed, first, probe_kind, real, z.device).to(z.dtype)
    count, inner = len(z), z.dtype
    # Sums of many steps, which half precision would not hold, whatever the model computes in.
    z = z.to(torch.promote_types(inner, torch.float32))
    dims = real_counts(real, z.shape[1:]).expand(count).to(z)[:, None]
    check_integer("at_once", at_once)

    def derivative(index: Tensor, t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.enable_grad(), part(model, index, count) as rows:
            x = state[0].to(inner)
            leaf = x if differentiable and x.requires_grad else x.detach().requires_grad_()
            velocity = rows.velocity(leaf, t)
            together = max(1, at_once // len(leaf))
            if directions is None:
                trace = exact_divergence(velocity, leaf, together, differentiable)
            else:
                trace = probed_divergence(velocity, leaf, directions[:, index.to(z.device)], together, differentiable)
        moved = velocity if differentiable else velocity.detach()
        return moved.to(z.dtype), trace.to(z.dtype) / dims[index.to(z.device)]

    seen = False

    def see(x: Tensor, t: Tensor, output: Tensor) -> None:
        nonlocal seen
        if not (seen or output.requires_grad):
            with counter.paused(), torch.no_grad():
                moved = model(1.1 * x + 0.1, t)
            if not torch.equal(moved, output):
                raise ValueError(
                    "the model's output depends on x, but has no gradient by it, which the likelihood asks for: leave "
                    "out no_grad, inference_mode and detach in its forward"
                )
        seen = True

    start = (z, z.new_zeros((count, probes or 1)))
    try:
        mode = nullcontext() if differentiable else evaluating(model)
        with torch.set_grad_enabled(differentiable), mode, Watch(model, count, see) as counter:
            solution = integrate(
                derivative, start, model.sde.t_min, t_finite(model.sde), rtol=rtol, atol=atol, max_nfe=max_nfe,
                sigma=model.sde.sigma, share=None if real is None else dims[:, 0].double().cpu() / z[0].numel(),
            )  # fmt: skip
    except SampleError as error:
        raise error.renumbered(range(first, first + count)) from None
    latent, traces = solution.state[0], dims * solution.state[1]
    prior = model.sde.prior_log_prob(latent)
    if real is not None:
        # The latent is 0 where it is padded, and the prior the same for every entry.
        prior = prior - (1 - dims[:, 0] / z[0].numel()) * model.sde.prior_log_prob(torch.zeros_like(latent))
    nats = prior + traces.mean(1)
    if probes is None:
        stderr = torch.zeros_like(nats)
    else:
        stderr = traces.std(1) / probes**0.5 if probes > 1 else torch.full_like(nats, torch.inf)
    return LogLikelihood(nats, stderr.detach(), counter.nfe, solution.rejected, latent)
