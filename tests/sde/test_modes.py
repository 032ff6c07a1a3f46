"""Modes: frozen modules in training, and what of torch's modes and defaults training does not depend on."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn

from samplers import SAMPLERS, generate
from score_sde.evaluation.validation import Validation
from score_sde.training.memory import dry_run
from sde import VPSDE, Denoiser, Transform
from sde.checkpoint.models import load_model, save_model
from sde.checkpoint.spec import build_denoiser, describe_sde
from sde.data import Dataset
from sde.networks import MLP
from sde.training import Trainer, TrainingOptions, denoising_loss
from sde.training.audit import audit


class Partly(nn.Module):
    """A linear network with dropout of everything behind a part that was frozen in eval mode, of which it tells."""

    num_classes = None

    def __init__(self):
        super().__init__()
        self.frozen, self.live, self.out = nn.Dropout(0.5), nn.Dropout(0.5), nn.Linear(2, 2)
        self.modes = []

    def forward(self, x, c_noise, cond=None):
        self.modes.append((self.frozen.training, self.live.training))
        return self.out(self.live(self.frozen(x))) + c_noise[:, None]


def partly_frozen():
    torch.manual_seed(0)
    model = Denoiser(Partly(), VPSDE(), event_shape=(2,)).train()
    model.network.frozen.eval()
    return model


def test_frozen_modules_stay_frozen():
    """In steps, in what is done for memory, in validation and in samples drawn in between; a model as it was loaded,
    in eval mode as a whole, is trained as a whole."""
    model, data = partly_frozen(), Dataset(torch.randn(64, 2), None, None, Transform())
    trainer = Trainer(model, data, denoising_loss, TrainingOptions(steps=4, batch_size=8))
    dry_run(trainer)
    trainer.training_step()
    validation = Validation(data, data, model.sde, "log_normal", "edm", torch.device("cpu"))
    validation.losses(model)
    generate(model, SAMPLERS["ddim"](), 2, (2,), steps=1)
    trainer.training_step()
    # A callback may also leave the whole in eval mode.
    model.eval()
    trainer.training_step()
    assert set(model.network.modes) == {(False, True), (False, False)}
    assert model.network.modes[-1] == (False, True)
    assert (model.training, model.network.frozen.training, model.network.live.training) == (True, False, True)
    model.network.live.eval()
    trainer.training_step()
    assert model.network.modes[-1] == (False, False), "frozen later"
    loaded = partly_frozen().eval()
    Trainer(loaded, data, denoising_loss, TrainingOptions(steps=1, batch_size=8)).training_step()
    assert loaded.network.modes == [(True, True)]


@pytest.mark.parametrize("around", ["autocast", "float64", "float16", "meta", "inference", "no_grad"])
def test_what_is_around_training_changes_nothing(around):
    """Two steps, with quantized data, classes and all averages, are the same bits."""

    def trained():
        torch.manual_seed(0)
        network = MLP((2,), 2, width=8, layers=1)
        model = Denoiser(network, VPSDE(), transform=Transform.of_levels(4), event_shape=(2,))
        items = torch.randint(4, (32, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        data = Dataset(items, items[:, 0].long() % 2, 2, model.transform)
        options = TrainingOptions(steps=2, batch_size=8, warmup_steps=1, power_ema_stds=(0.1,))
        return model, data, options

    def steps(model, data, options):
        audit(data, model)
        trainer = Trainer(model, data, partial(denoising_loss, cond_dropout=0.5), options)
        found = [trainer.training_step().losses for _ in range(2)]
        return torch.cat([*found, *(p.detach().flatten() for p in model.parameters())])

    expected, made = steps(*trained()), trained()
    before = torch.get_default_dtype()
    contexts = {
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "meta": lambda: torch.device("meta"),
        "inference": torch.inference_mode,
        "no_grad": torch.no_grad,
    }
    try:
        if around.startswith("float"):
            torch.set_default_dtype(getattr(torch, around))
        with contexts.get(around, nullcontext)():
            found = steps(*made).clone()
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_load_alike_whatever_the_defaults(tmp_path, dtype):
    spec = {"network": {"name": "mlp", "width": 8, "layers": 1}, "event_shape": [2], "num_classes": None,
            "sde": describe_sde(VPSDE()), "parametrization": "edm", "sigma_data": 1.0,
            "transform": {"shift": [0.0], "scale": [1.0], "levels": None}, "null_trained": True}  # fmt: skip
    model = build_denoiser(spec)
    save_model(tmp_path / "m.safetensors", "denoiser", spec, model.state_dict())
    torch.set_default_dtype(dtype)
    torch.set_default_device("meta")
    try:
        found = load_model(tmp_path / "m.safetensors")
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    for name, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)
