"""The evidence bound of a model in latents: of the autoencoder's pair and the flow of its latents."""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from samplers.checks import as_states, check_data, check_integer, check_model
from samplers.host import undisturbed, wide
from samplers.likelihood.flow import state_log_likelihood
from samplers.noise.seeded import DRAW_OFFSET, POSTERIORS, SeededNoise, item_seeds
from samplers.protocol import GaussianProcess, LatentVariables, missing, transform_of


@dataclass(frozen=True)
class EvidenceBound:
    """A lower bound of log p(x) = log of the integral of p(x | z) p(z) over z; all (B,), float64, on the CPU, in nats.

    ``nats`` = ``reconstruction`` + ``prior`` + ``entropy``, the means over draws z of q(z | x) of log p(x | z), of log
    p(z) by the probability flow, and of -log q(z | x). It lies below log p(x) by KL(q(z | x) || p(z | x)). ``stderr``
    is the standard error that the draws and the probes leave; one draw cannot tell it, and reports infinity.
    ``importance`` is the tighter bound log of the mean of p(x | z) p(z) / q(z | x) over the draws (Burda et al. 2016,
    eq. 8), of the exact trace alone: the noise of probes would lift it; None elsewhere. ``nfe`` counts network calls.
    """

    nats: Tensor
    stderr: Tensor
    reconstruction: Tensor
    prior: Tensor
    entropy: Tensor
    importance: Tensor | None
    nfe: Tensor


@undisturbed
def evidence_bound(
    model,
    x: Tensor,
    *,
    draws: int = 2,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    probes: int | None = None,
    seed: int = 0,
    first: int = 0,
    max_nfe: int = 10_000,
) -> EvidenceBound:
    """log p(x) >= E_q [log p(x | z) + log p(z) - log q(z | x)] of x (B, *event) in data units, quantized ones as their
    integers (Kingma and Welling 2014, eq. 2, with p(z) the flow of latents: Vahdat et al. 2021, eq. 3).

    q and p(x | z) are those of the model's transform (``LatentVariables``). A quantized x is encoded from the middle of
    its cell, and p(x | z) is the probability of that cell: the bound is of the probability. ``draws`` of z per item;
    ``rtol``, ``atol``, ``probes`` and ``max_nfe`` are those of ``log_likelihood`` for log p(z). An item's draws depend
    on ``seed`` and its number, counted from ``first``, alone. Raises ValueError for a transform without latent
    variables, for an encoder without spread, and as ``log_likelihood`` does.
    """
    check_model(model, GaussianProcess, "evidence_bound")
    check_integer("draws", draws)
    x = as_states(x, model)
    check_data(x, model)
    transform = cast(LatentVariables, transform_of(model))
    if missing(transform, LatentVariables):
        raise ValueError(
            "the model's transform has no latent variables, which a bound of the evidence integrates over: the exact "
            "likelihood is there, ask log_likelihood"
        )
    with torch.no_grad():
        mean, std = transform.posterior(transform.dequantize(x, 0.5))
        if not bool((std > 0).all()):
            raise ValueError(
                "the encoder is deterministic, with a standard deviation of 0: q(z | x) has no density, and there is "
                "no bound; take an autoencoder with a Gaussian posterior"
            )
    solved = {"seed": seed, "first": first, "rtol": rtol, "atol": atol, "probes": probes, "max_nfe": max_nfe}
    parts = [_draw(model, transform, x, mean, std, draw, **solved) for draw in range(draws)]
    reconstruction, prior, entropy, nfe = (torch.stack(values) for values in zip(*parts, strict=True))
    each = reconstruction + prior + entropy
    # The spread of the draws holds what probes leave open: each draw has probes of its own.
    stderr = each.std(0) / draws**0.5 if draws > 1 else torch.full_like(each[0], torch.inf)
    importance = each.logsumexp(0) - math.log(draws) if probes is None and draws > 1 else None
    return EvidenceBound(
        each.mean(0), stderr, reconstruction.mean(0), prior.mean(0), entropy.mean(0), importance, nfe.sum(0)
    )


def _draw(
    model, transform: LatentVariables, x: Tensor, mean: Tensor, std: Tensor, draw: int, *, seed, first, **options: Any
) -> tuple[Tensor, ...]:
    """log p(x | z), log p(z), -log q(z | x) and network calls of one draw of z for each item, each (B,)."""
    n = SeededNoise(item_seeds(seed, POSTERIORS, len(x), first, draw))(mean)
    with torch.no_grad():
        z = mean + std * n
        reconstruction = transform.log_likelihood(x, z).cpu().double()
    log_q = -0.5 * (wide(n).square() + math.log(2 * math.pi)) - wide(std).log()
    # Of every draw other probes, as of every dequantization.
    found = state_log_likelihood(model, z, seed=seed + draw * DRAW_OFFSET, first=first, **options)
    return reconstruction, found.nats.cpu().double(), -log_q.flatten(1).sum(1).cpu(), found.nfe.cpu()
