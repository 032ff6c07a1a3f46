"""Small trainers, and what their states must share."""

from functools import partial

import torch

from sde import VPSDE
from sde.checkpoint.spec import build_denoiser, describe_sde
from sde.data import Dataset
from sde.data.transform import Transform
from sde.training.loss import denoising_loss
from sde.training.options import TrainingOptions
from sde.training.trainer import Trainer
from sde.training.uncertainty import UncertaintyWeighting

SPEC = {"network": {"name": "mlp", "width": 16, "layers": 1, "dropout": 0.2}, "event_shape": [3], "num_classes": 2,
        "sde": describe_sde(VPSDE()), "parametrization": "edm", "sigma_data": 1.0,
        "transform": {"shift": [0.0], "scale": [1.0], "levels": None}, "null_trained": True}  # fmt: skip


def dataset(count=23):
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(1))
    return Dataset(x, torch.arange(count) % 2, 2, Transform())


def trainer(steps=20, dropout=0.2, device="cpu", world=None, uncertain=False, **options):
    torch.manual_seed(0)
    model = build_denoiser({**SPEC, "network": {**SPEC["network"], "dropout": dropout}})
    own = TrainingOptions(steps=steps, batch_size=8, warmup_steps=5, **options)
    uncertainty = UncertaintyWeighting(model.sde) if uncertain else None
    loss = partial(denoising_loss, cond_dropout=0.3)
    return Trainer(model.to(device), dataset(), loss, own, world, uncertainty=uncertainty)


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
