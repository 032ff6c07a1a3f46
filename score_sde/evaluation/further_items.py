"""Likelihoods of further items, beside those that a report is of: training items, and those of another set."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from samplers import dequantized, log_likelihood
from score_sde.kinds.base import Kind
from score_sde.run.inputs import read_like
from sde.data import Dataset
from sde.data.statistics import spread
from sde.device import placed
from sde.distributed.world import World


def nats_of(world: World, model, x: Tensor, sizes: Tensor | None, batch_size: int, settings: dict) -> Tensor:
    """log p of further items (n,), once each."""
    device, parts = next(model.parameters()).device, []
    x = dequantized(model.transform, x, settings["seed"], sizes=sizes)
    for rows in world.batches(len(x), batch_size):
        part = model.rows(rows), placed(x[rows], device)
        own = None if sizes is None else sizes[rows]
        parts.append(log_likelihood(*part, first=rows.start, sizes=own, **settings).nats.cpu().double())
    return torch.cat(world.all_gather_flat(parts))


def read_others(path: str, data: Dataset, most: int, kind: Kind) -> tuple[Tensor, Tensor | None]:
    """At most so many items of --ood_file, in the units of the data, and their sizes."""
    x, _, sizes = read_like("--ood_file", path, data, kind)
    index = spread(len(x), most)
    return x[index], None if sizes is None else sizes[index]


def auroc(own: Tensor, others: Tensor) -> float:
    """The probability that an item of the data has the larger log p."""
    truth = np.r_[np.ones(len(own)), np.zeros(len(others))]
    return float(roc_auc_score(truth, torch.cat([own, others]).numpy()))
