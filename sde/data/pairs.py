"""Pairs: items with the noise that a probability flow carried to each of them, for training on that coupling."""

import torch
from torch import Tensor

from sde.condition.tree import Condition
from sde.data.dataset import Dataset


def paired(
    data: Dataset,
    x: Tensor,
    noise: Tensor,
    cond: Condition | None = None,
    sizes: Tensor | None = None,
    state: Tensor | None = None,
) -> Dataset:
    """The data set of items x (n, *event) in data units, as they came out of a flow that began at ``noise`` (n, *inner)
    in model units, in the place of ``data``, whose classes and transform it has.

    Denoising that is trained on x_t = alpha x_0 + sigma z with the z of x_0 has for its optimum a flow with the same
    ends, which on the straight path costs no convex function of z - x_0 more, and is straighter: reflow (Liu et al.
    2023, rectified flow, section 2 and theorem 3.5). ``cond`` has what the model was told of each. Quantized items lie
    anywhere in their cells, and stay there. Of a learned transform ``state`` (n, *inner) are the samples in model
    units, to which no encoder leads back. Raises ValueError for other shapes than those of the data.
    """
    if x.shape[1:] != data.event_shape:
        raise ValueError(f"the pairs have items of shape {tuple(x.shape[1:])}, the data {data.event_shape}")
    told = cond or {}
    labels = told.get("labels")
    return Dataset(
        x,
        labels,
        None if labels is None else data.num_classes,
        data.transform.continuous(),
        {kind: held for kind, held in told.items() if kind != "labels"},
        data.about,
        sizes,
        noise=noise,
        codes=None if state is None else torch.cat([state, torch.zeros_like(state)], 1),
    )
