"""Log-likelihood by the instantaneous change of variables along the probability-flow ODE."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samplers.calls import CallCounter, evaluating, part
from samplers.checks import SampleError, check_model, check_state
from samplers.runge_kutta import integrate
from samplers.step import check_integer


@dataclass
class LogLikelihood:
    """``nats`` (B,), log-density in data units; ``stderr`` (B,), what the probes leave open (0 for the exact trace);
    ``nfe`` (B,), counted network calls; ``latent`` (B, *event), x at the noise end, in model units."""

    nats: Tensor
    stderr: Tensor
    nfe: Tensor
    latent: Tensor


PROBES = 1
"""Sets the probes' random numbers apart from any others drawn with the same seed."""


def rademacher(shape: tuple[int, ...], probes: int, seed: int, first: int) -> Tensor:
    """Directions (k, B, *event) of +-1; those of row i depend on the seed and on first + i alone."""
    signs = []
    for item in range(first, first + shape[0]):
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, item, PROBES))))
        signs.append(generator.integers(0, 2, (probes, *shape[1:])) * 2 - 1)
    return torch.from_numpy(np.stack(signs, 1))


def exact_divergence(velocity: Tensor, x: Tensor) -> Tensor:
    """sum_j d velocity_j / d x_j, by a vector-Jacobian product a dimension: (B, *event) twice -> (B, 1)."""
    total, dim = 0.0, x[0].numel()
    for j in range(dim):
        unit = torch.zeros_like(x)
        unit.flatten(1)[:, j] = 1
        (product,) = torch.autograd.grad(velocity, x, unit, retain_graph=j < dim - 1)
        total = total + product.flatten(1)[:, j : j + 1]
    return total


def probed_divergence(velocity: Tensor, x: Tensor, probes: Tensor) -> Tensor:
    """v . (d velocity / d x) v for every probe v (Hutchinson 1990): probes (k, B, *event) -> (B, k)."""
    products = []
    for last, v in zip(range(len(probes) - 1, -1, -1), probes, strict=True):
        (product,) = torch.autograd.grad(velocity, x, v, retain_graph=last > 0)
        products.append((product * v).flatten(1).sum(1))
    return torch.stack(products, 1)


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
) -> LogLikelihood:
    """log p(x) of x (B, *event) in data units (Song et al. 2021, appendix D.2, eq. 39).

    log p_0(x) = log p_T(x_T) + integral of div velocity dt, from t_min to t_max. ``probes=None`` takes the exact trace
    (one vector-Jacobian product a dimension, the network called once); an integer averages that many Rademacher probes,
    whose spread gives ``stderr``; one probe cannot tell it, and reports infinity. A sample's value does not depend on
    its batch-mates; ``first`` is the number of the first item where a set is evaluated in parts. The density is that of
    x_t at t_min. Raises ValueError for guided models, which are no normalised densities, unless ``guided``.
    """
    if not (guided or getattr(model, "normalised", True)):
        raise ValueError("a guided model is not a normalised density: pass guided=True to integrate it all the same")
    check_model(model)
    check_state(x, model)
    if probes is not None:
        check_integer("probes", probes)
    transform = getattr(model, "transform", None)
    z = x if transform is None else transform.encode(x)
    directions = None if probes is None else rademacher(tuple(z.shape), probes, seed, first).to(z)
    count = len(z)

    def derivative(index: Tensor, t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.enable_grad(), part(model, index, count) as rows:
            leaf = state[0].detach().requires_grad_()
            velocity = rows.velocity(leaf, t)
            if directions is None:
                trace = exact_divergence(velocity, leaf)
            else:
                trace = probed_divergence(velocity, leaf, directions[:, index.to(z.device)])
        return velocity.detach(), trace

    start = (z, z.new_zeros((count, probes or 1)))
    try:
        with torch.no_grad(), evaluating(model), CallCounter(model, count) as counter:
            solution = integrate(
                derivative, start, model.sde.t_min, model.sde.t_max, rtol=rtol, atol=atol, max_nfe=max_nfe,
                sigma=model.sde.sigma,
            )  # fmt: skip
    except SampleError as error:
        raise error.renumbered(range(first, first + count)) from None
    latent, traces = solution.state
    nats = model.sde.prior_log_prob(latent) + traces.mean(1)
    if transform is not None:
        nats = nats + transform.log_det(tuple(x.shape[1:]))
    if probes is None:
        stderr = torch.zeros_like(nats)
    else:
        stderr = traces.std(1) / probes**0.5 if probes > 1 else torch.full_like(nats, torch.inf)
    return LogLikelihood(nats, stderr, counter.calls, latent)
