"""The mix of classes: real items in the parts in which samples were asked for."""

import warnings

import numpy as np
import torch
from torch import Tensor

from sde.data import Dataset
from sde.data.statistics import spread

SIMULATIONS, LEVEL = 1000, 0.01
"""Random divisions that two mixes are held against, and the share of them below which they are not of one law."""


def by_the_law(asked: Tensor, labels: Tensor) -> bool:
    """Whether classes ``asked`` (n,) and the ``labels`` (m,) of items may be draws by one law: by Pearson's chi-square
    of both, held against random divisions of all of them, since rare classes are too few for its limit, and the items'
    own parts are as random as those asked for."""
    classes = int(max(asked.max(), labels.max())) + 1
    counts, known = (one.bincount(minlength=classes).numpy() for one in (asked, labels))
    whole = (counts + known)[counts + known > 0]
    expected = whole * len(asked) / whole.sum()
    draws = np.random.default_rng(0).multivariate_hypergeometric(whole, len(asked), SIMULATIONS)
    own, other = (((found - expected) ** 2 / whole).sum(-1) for found in (counts[counts + known > 0], draws))
    return bool((other >= own * (1 - 1e-9)).mean() >= LEVEL)


def matching(data: Dataset, asked: Tensor | None, *, warn: bool = True) -> Tensor:
    """Positions of the items that samples of the classes ``asked`` (n,) are held against: all, where there are no
    classes or they are in the parts of the data; or else the most that are in the parts of those asked for, of each
    class some that are spread over the set. Of classes that the items have none of the others alone count, of which it
    warns unless told not to; raises ValueError where they have none of any.
    """
    every = torch.arange(len(data))
    if asked is None or data.labels is None or (asked < 0).any():
        return every
    labels = data.labels.cpu()
    labels = labels[labels >= 0]
    if not len(labels) or by_the_law(asked, labels):
        return every
    classes, counts = asked.unique(return_counts=True)
    known = torch.stack([(labels == one).sum() for one in classes])
    missing = classes[known == 0].tolist()
    if len(missing) == len(classes):
        raise ValueError(f"the items that samples are held against have none of the classes asked for, {missing}")
    if missing and warn:
        warnings.warn(
            f"the items that samples are held against have none of the classes {missing}, which were asked for: "
            "distances tell that more than anything",
            stacklevel=2,
        )
    classes, counts, known = (one[known > 0] for one in (classes, counts, known))
    share = counts.double() / counts.sum()
    whole = (known / share).min()
    parts = []
    for one, its in zip(classes.tolist(), share.tolist(), strict=True):
        rows = (data.labels.cpu() == one).nonzero().squeeze(1)
        parts.append(rows[spread(len(rows), int(its * whole + 1e-6))])
    return torch.cat(parts).sort().values
