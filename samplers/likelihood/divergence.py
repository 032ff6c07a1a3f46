"""The divergence of a velocity, exact or probed, from one evaluation of it."""

import torch
from torch import Tensor

from samplers.checks import choose
from samplers.noise.draws import Draws
from samplers.noise.laws import NORMAL, SIGNS
from samplers.noise.philox import Philox
from samplers.noise.seeded import PROBES, item_seeds

PROBE_KINDS = ("rademacher", "gaussian")


def draw_probes(
    shape: tuple[int, ...],
    probes: int,
    seed: int,
    first: int,
    kind: str = "rademacher",
    sizes: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Directions (k, B, *event) of unit covariance, in float32 and on the device; those of row i depend on the seed and
    on first + i alone, 0 where items of these ``sizes`` are padded.

    Rademacher probes have the smaller variance: that of the off-diagonal elements alone (Hutchinson 1990).
    """
    choose("probe_kind", kind, PROBE_KINDS)
    real, law = None if sizes is None else sizes.tolist(), SIGNS if kind == "rademacher" else NORMAL
    draws = Draws(Philox(item_seeds(seed, PROBES, shape[0], first)), law, real)
    return torch.stack([draws.next(tuple(shape), torch.float32, torch.device(device)) for _ in range(probes)])


def _products(velocity: Tensor, x: Tensor, directions: Tensor, keep: bool, graph: bool) -> Tensor:
    """Vector-Jacobian products of directions (k, B, *event), of the same shape: in one batched backward pass, or one
    after the other where torch has no batched one.

    It has none, or a wrong one, of several layers where the products are differentiated again (``graph``), and of group
    norm in channels_last. Raises ValueError where torch cannot differentiate the model.
    """
    if not graph and len(directions) > 1:
        try:
            # The graph is kept for another try.
            return torch.autograd.grad(velocity, x, directions, retain_graph=True, is_grads_batched=True)[0]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            pass
    rows, last = [], len(directions) - 1
    try:
        for i, direction in enumerate(directions):
            held = keep or graph or i < last
            rows.append(torch.autograd.grad(velocity, x, direction, retain_graph=held, create_graph=graph)[0])
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"the likelihood needs derivatives of the model by x that torch cannot take of it ({reason}): leave out "
            "torch.compile, fused or hand-written kernels and no_grad inside of it"
        ) from error
    return torch.stack(rows)


def exact_divergence(velocity: Tensor, x: Tensor, at_once: int, graph: bool = False) -> Tensor:
    """sum_j d velocity_j / d x_j, (B, *event) twice -> (B, 1): the Jacobian's rows, ``at_once`` basis vectors per pass.

    With ``graph`` the result can be differentiated.
    """
    total, dim = x.new_zeros(len(x)), x[0].numel()
    for start in range(0, dim, at_once):
        count = min(at_once, dim - start)
        basis = x.new_zeros((count, len(x), dim))
        basis[..., start : start + count].diagonal(0, 0, 2).fill_(1)
        products = _products(velocity, x, basis.view(count, *x.shape), start + count < dim, graph)
        total = total + products.flatten(2)[..., start : start + count].diagonal(0, 0, 2).sum(1)
    return total[:, None]


def probed_divergence(velocity: Tensor, x: Tensor, probes: Tensor, at_once: int, graph: bool = False) -> Tensor:
    """v . (d velocity / d x) v for every probe v (Hutchinson 1990): probes (k, B, *event) -> (B, k)."""
    parts = []
    for start in range(0, len(probes), at_once):
        some = probes[start : start + at_once]
        products = _products(velocity, x, some, start + at_once < len(probes), graph)
        parts.append((products * some).flatten(2).sum(2))
    return torch.cat(parts).T
