"""Log-likelihood by the instantaneous change of variables along the probability-flow ODE."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samplers.runge_kutta import integrate


@dataclass
class LogLikelihood:
    """``nats`` (B,), log-density in data units; ``stderr`` (B,), what the probes leave open (0 for the exact trace);
    ``nfe`` (B,), counted network calls; ``latent`` (B, *event), x at the noise end, in model units."""

    nats: Tensor
    stderr: Tensor
    nfe: Tensor
    latent: Tensor


def _probes(shape: tuple[int, ...], probes: int | None, seed: int, x: Tensor) -> Tensor:
    """Directions (k, B, *event): Rademacher with a generator a sample, or all unit vectors for the exact trace."""
    event = shape[1:]
    dim = int(np.prod(event))
    if probes is None:
        return torch.eye(dim, dtype=x.dtype, device=x.device).view(dim, 1, *event).expand(dim, *shape)
    if probes < 1:
        raise ValueError(f"probes = {probes}: needs at least 1, or None for the exact trace")
    signs = [
        np.random.Generator(np.random.Philox((seed << 32) + i)).integers(0, 2, (probes, *event))
        for i in range(shape[0])
    ]
    return torch.from_numpy(np.stack(signs, 1) * 2 - 1).to(x)


def divergence(velocity: Tensor, x: Tensor, probes: Tensor) -> Tensor:
    """v . (d velocity / d x) v for every probe v: probes (k, B, *event) -> (k, B), by k vector-Jacobian products."""
    products = []
    for last, v in zip(range(len(probes) - 1, -1, -1), probes, strict=True):
        (vjp,) = torch.autograd.grad(velocity, x, v, retain_graph=last > 0)
        products.append((vjp * v).flatten(1).sum(1))
    return torch.stack(products)


def log_likelihood(
    model,
    x: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    probes: int | None = None,
    seed: int = 0,
    max_nfe: int = 10_000,
) -> LogLikelihood:
    """log p(x) of x (B, *event) in data units (Song et al. 2021, appendix D.2, eq. 39).

    log p_0(x) = log p_T(x_T) + integral of div velocity dt, from t_min to t_max. ``probes=None`` takes the exact trace
    (one vector-Jacobian product a dimension, the network called once); an integer averages that many Rademacher probes
    (Hutchinson 1990), whose spread gives ``stderr``; one probe cannot tell it, and reports infinity. A sample's value
    does not depend on its batch-mates. The density is that of x_t at t_min.
    """
    transform = getattr(model, "transform", None)
    z = x if transform is None else transform.encode(x)
    directions = _probes(tuple(z.shape), probes, seed, z)
    count = len(z)

    def derivative(index: Tensor, t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        rows = model if len(index) == count else model.rows(index)
        with torch.enable_grad():
            leaf = state[0].detach().requires_grad_()
            velocity = rows.velocity(leaf, t)
            traces = divergence(velocity, leaf, directions[:, index.to(z.device)])
        if probes is None:
            return velocity.detach(), traces.sum(0)[:, None]
        return velocity.detach(), traces.T

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            traces = z.new_zeros((count, 1 if probes is None else probes))
            solution = integrate(
                derivative, (z, traces), model.sde.t_min, model.sde.t_max, rtol=rtol, atol=atol, max_nfe=max_nfe
            )
    finally:
        model.train(was_training)
    latent, traces = solution.state
    nats = model.sde.prior_log_prob(latent) + traces.mean(1)
    if transform is not None:
        nats = nats + transform.log_det(tuple(x.shape[1:]))
    if probes is None:
        stderr = torch.zeros_like(nats)
    else:
        stderr = traces.std(1) / probes**0.5 if probes > 1 else torch.full_like(nats, torch.inf)
    return LogLikelihood(nats, stderr, solution.nfe, latent)
