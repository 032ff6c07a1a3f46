"""Tied weights: one value in the optimizer, the averages, files and states, and tied again when they are loaded."""

import copy
import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from sde import VPSDE, Denoiser, Transform
from sde.checkpoint.models import load_model, save_model
from sde.checkpoint.snapshots import find_snapshots, reconstruct, save_averages
from sde.checkpoint.spec import describe_sde
from sde.checkpoint.states import Checkpoints
from sde.checkpoint.tied import tied_names
from sde.data import Dataset
from sde.distributed.sharding import shares
from sde.networks import NETWORKS
from sde.training import Trainer, TrainingOptions, denoising_loss
from sde.training.ema import EMA, Averages

NAMES = ("network.inner.weight", "network.out.weight")


class Tied(nn.Module):
    """F = W tanh(W x + b + c_noise) + c, the two W one parameter."""

    num_classes = None

    def __init__(self, event_shape=(2,), num_classes=None):
        super().__init__()
        self.inner, self.out = nn.Linear(2, 2), nn.Linear(2, 2)
        self.out.weight = self.inner.weight

    def forward(self, x, c_noise, cond=None):
        return self.out(torch.tanh(self.inner(x) + c_noise[:, None]))


SPEC = {
    "network": {"name": "tied"}, "event_shape": [2], "num_classes": None, "sde": describe_sde(VPSDE()),
    "parametrization": "edm", "sigma_data": 1.0, "transform": {"shift": [0.0], "scale": [1.0], "levels": None},
    "null_trained": True,
}  # fmt: skip


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setitem(NETWORKS, "tied", Tied)
    torch.manual_seed(0)
    return Denoiser(Tied(), VPSDE(), sigma_data=1.0, event_shape=(2,))


def trainer_of(model, **options):
    data = Dataset(torch.randn(32, 2, generator=torch.Generator().manual_seed(1)), None, None, Transform())
    plain = {"steps": 4, "batch_size": 8, "warmup_steps": 1, "max_grad_norm": 0.0, "ema_decay": 0.9}
    return Trainer(model, data, lambda m, x, c, d: denoising_loss(m, x, c, d), TrainingOptions(**plain | options))


def test_averages_are_of_one_value(model):
    averages, start = Averages(model, 0.5, (0.9,), (0.1,)), model.network.inner.weight.detach().clone()
    with torch.no_grad():
        model.network.inner.weight += 1
    averages.update(model)
    for average in (averages.model_average, *averages.extra.values()):
        state = average.module_state(model)
        torch.testing.assert_close(state[NAMES[0]], start + average.weight())
        assert state[NAMES[1]] is state[NAMES[0]]
        assert state.keys() == model.state_dict().keys()


def test_a_file_holds_it_once_and_loads_tied(model, tmp_path):
    average = EMA(model, 0.5)
    with torch.no_grad():
        model.network.inner.weight += 1
    average.update(model)
    for state in (model.state_dict(), average.module_state(model), {**model.state_dict()}):
        save_model(tmp_path / "m.safetensors", "denoiser", SPEC, state)
        with safe_open(tmp_path / "m.safetensors", "pt") as file:
            assert set(file.keys()) == {"network.inner.weight", "network.inner.bias", "network.out.bias"}
        loaded = load_model(tmp_path / "m.safetensors")
        assert loaded.network.out.weight is loaded.network.inner.weight
        assert torch.equal(loaded.network.out.weight, state[NAMES[0]])
    assert tied_names(model.state_dict()) == {NAMES[1]: NAMES[0]}
    assert not tied_names({"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(0), "d": torch.ones(0)})


def test_parts_of_one_tensor_are_written_whole(model, tmp_path):
    """Names that share memory in another way than as one tensor."""
    state = model.state_dict()
    both = torch.arange(8.0)
    state |= {NAMES[0]: both[:4].view(2, 2), NAMES[1]: both[4:].view(2, 2)}
    save_model(tmp_path / "m.safetensors", "denoiser", SPEC, state)
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        for name in NAMES:
            assert torch.equal(file.get_tensor(name), state[name])


def test_a_step_counts_it_once(model):
    """By hand: gradient descent by AdamW's first step, -lr sign(gradient) after the decay (1 - lr weight_decay)."""
    trainer = trainer_of(model, optimizer="adamw", lr=0.1, lr_decay="none", weight_decay=0.5)
    assert sum(p.numel() for p in trainer.parameters.values()) == 8
    before = model.network.inner.weight.detach().clone()
    trainer.training_step()
    after, gradient = model.network.inner.weight.detach(), model.network.inner.weight.grad
    torch.testing.assert_close(after, before * (1 - 0.1 * 0.5) - 0.1 * gradient.sign(), rtol=1e-4, atol=1e-5)
    assert model.network.out.weight is model.network.inner.weight


def test_states_and_snapshots_of_a_run(model, tmp_path):
    trainer = trainer_of(model, power_ema_stds=(0.1, 0.2))
    for _ in range(3):
        trainer.training_step()
        save_averages(tmp_path / "ema", "denoiser", SPEC, trainer.ema, model)
    path = Checkpoints(tmp_path / "states", "denoiser").save({**trainer.state_dict(), "spec": json.dumps(SPEC)})
    found, average = load_model(path), trainer.ema.model_average.average[NAMES[0]]
    assert torch.equal(found.network.out.weight, average)
    assert torch.equal(found.network.inner.weight, average)
    again = trainer_of(copy.deepcopy(model), power_ema_stds=(0.1, 0.2))
    again.load_state_dict(Checkpoints(tmp_path / "states", "denoiser").load()[0])
    results = [t.training_step().loss for t in (trainer, again)]
    assert torch.equal(*results)
    assert torch.equal(again.module.network.out.weight, model.network.inner.weight)
    kept = load_model(tmp_path / "ema" / "power-0.1-00000003.safetensors").state_dict()
    held = find_snapshots(tmp_path / "ema")
    for name in NAMES:
        torch.testing.assert_close(reconstruct(held, 0.1, 3)[name], kept[name])
    between = reconstruct(held, 0.15, 3)
    assert torch.equal(between[NAMES[0]], between[NAMES[1]])
    assert not torch.allclose(between[NAMES[0]], kept[NAMES[0]], rtol=1e-6)


def test_blocks_that_share_are_split_with_the_whole():
    network = nn.Module()
    network.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    network.head = nn.Linear(2, 2)
    network.head.weight = network.blocks[2].weight
    assert [shares(network, block) for block in network.blocks] == [False, False, True]
    network.blocks.append(network.blocks[1])
    assert [shares(network, block) for block in network.blocks] == [False, True, True, True]
