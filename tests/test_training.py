"""Training: which items a step sees, what continuing means, averages, files, failures."""

import math
from functools import partial

import pytest
import torch

from sde import VPSDE, Denoiser
from sde.checkpoint import Checkpoints, build_denoiser, build_sde, describe_sde, load_model, save_model
from sde.data import Dataset
from sde.ema import EMA
from sde.loss import denoising_loss
from sde.training import Trainer, TrainingOptions, fit
from sde.transform import Transform
from tests.processes import Straight

SPEC = {"network": {"name": "mlp", "width": 16, "layers": 1, "dropout": 0.2}, "event_shape": [3], "num_classes": 2,
        "sde": describe_sde(VPSDE()), "parametrization": "edm", "sigma_data": 1.0,
        "transform": {"shift": [0.0], "scale": [1.0], "levels": None}, "null_trained": True}  # fmt: skip


def dataset(count=23):
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(1))
    return Dataset(x, torch.arange(count) % 2, 2, Transform())


def trainer(steps=20, **options):
    torch.manual_seed(0)
    model = build_denoiser(SPEC)
    return Trainer(model, dataset(), partial(denoising_loss, cond_dropout=0.3),
                   TrainingOptions(steps=steps, batch_size=8, warmup=5, **options))  # fmt: skip


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_continuing_equals_never_stopping(tmp_path, optimizer):
    straight = trainer(optimizer=optimizer)
    fit(straight, [])
    first = trainer(optimizer=optimizer)
    with torch.random.fork_rng():
        for _ in range(10):
            first.optimise()
    states = Checkpoints(tmp_path, "denoiser")
    states.save(first.state_dict())
    second = trainer(optimizer=optimizer)
    torch.manual_seed(99)
    second.load_state_dict(states.load()[0])
    fit(second, [])
    assert same(straight.state_dict(), second.state_dict())


def test_global_random_state_is_restored():
    run = trainer(3)
    before = torch.get_rng_state()
    fit(run, [])
    assert torch.equal(before, torch.get_rng_state())


def test_every_epoch_is_a_permutation():
    run = trainer()
    stream = torch.cat([run.indices(step) for step in range(23)])
    epochs = stream.view(8, 23)
    assert all(torch.equal(epoch.sort().values, torch.arange(23)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_learning_rate():
    options = TrainingOptions(steps=100, lr=1.0, warmup=10, lr_decay="cosine")
    assert options.lr_at(0) == 0.1
    assert options.lr_at(50) == pytest.approx(0.5)
    assert options.lr_at(100) == pytest.approx(0)
    assert TrainingOptions(steps=100, lr=1.0, warmup=0, lr_decay="none").lr_at(99) == 1


def test_average_of_parameters_only():
    module = torch.nn.BatchNorm1d(2)
    ema = EMA(module, 0.5)
    weight, expected = module.weight.detach().clone(), module.weight.detach().clone()
    for n in range(1, 6):
        with torch.no_grad():
            module.weight += n
            module.running_mean += 10
        weight = module.weight.detach()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weight
        ema.update(module)
    state = ema.module_state(module)
    torch.testing.assert_close(state["weight"], expected)
    assert torch.equal(state["running_mean"], module.running_mean)
    assert ema.module_state(module)["weight"].data_ptr() != module.weight.data_ptr()


def test_training_learns():
    """Of data at a single point, nothing stays unknown: the loss falls far below that of the untrained network."""
    run = trainer(200, lr=1e-2)
    run.data.items.fill_(2.0)
    start = denoising_loss(run.module, run.data.items, None, torch.Generator().manual_seed(0)).mean()
    fit(run, [])
    after = denoising_loss(run.module.eval(), run.data.items, None, torch.Generator().manual_seed(0)).mean()
    assert after < 0.2 * start


def test_not_finite_loss_names_the_step_and_calls_nothing():
    run = trainer(20)

    def breaks(model, x, labels, generator):
        return denoising_loss(model, x, labels, generator) * (math.nan if run.step == 6 else 1)

    run.loss = breaks
    called = []
    with pytest.raises(FloatingPointError, match="not finite in step 7"):
        fit(run, [(4, lambda step, losses: called.append((step, len(losses))))])
    assert called == [(4, 4)]


def test_callbacks_see_every_loss_once():
    run = trainer(20)
    seen = []
    fit(run, [(8, lambda step, losses: seen.append((step, tuple(losses.shape))))], read_every=5)
    assert seen == [(8, (8, 8)), (16, (8, 8)), (20, (4, 8))]


def test_not_finite_weights_are_not_saved():
    run = trainer(2)
    with torch.no_grad():
        next(run.module.parameters())[0] = math.inf
    with pytest.raises(FloatingPointError, match="not finite after step 0"):
        run.state_dict()


@pytest.mark.parametrize(("options", "words"), [
    ({"optimizer": "sgd"}, "adam, adamw"), ({"lr": 0.0}, "positive"), ({"steps": -1}, "positive"),
    ({"clip": -1.0}, "zero or more"), ({"lr_decay": "linear"}, "none, cosine"), ({"ema": 1.0}, "ema"),
])  # fmt: skip
def test_refused_options(options, words):
    with pytest.raises(ValueError, match=words):
        trainer(**{"steps": 5, **options})


def test_batch_larger_than_the_data():
    with pytest.raises(ValueError, match="batch_size = 64 is larger than the 23 training items"):
        Trainer(build_denoiser(SPEC), dataset(), denoising_loss, TrainingOptions(batch_size=64))


def test_damaged_checkpoint_falls_back(tmp_path):
    states = Checkpoints(tmp_path, "denoiser")
    for step in (1, 2, 3):
        states.save({"step": step})
    assert [p.name for p in states.paths()] == ["denoiser-00000003.pt", "denoiser-00000002.pt"]
    states.paths()[0].write_bytes(b"cut short")
    state, passed = states.load()
    assert state["step"] == 2
    assert "denoiser-00000003.pt is damaged" in passed[0]
    assert Checkpoints(tmp_path, "classifier").load() == (None, [])


def test_a_model_file_rebuilds_the_model(tmp_path):
    torch.manual_seed(0)
    model = build_denoiser(SPEC)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path / "model.safetensors"
    save_model(path, "denoiser", SPEC, model.state_dict())
    before = torch.get_rng_state()
    loaded = load_model(path)
    assert torch.equal(before, torch.get_rng_state())
    x, t, y = torch.randn(4, 3), torch.tensor(0.4), torch.tensor([0, 1, -1, 0])
    torch.testing.assert_close(loaded(x, t, y), model.eval()(x, t, y))
    assert (loaded.sde, loaded.transform, loaded.event_shape) == (model.sde, model.transform, (3,))
    assert not loaded.training
    with pytest.raises(ValueError, match="holds a denoiser"):
        load_model(path, "classifier")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        load_model(path)
    with pytest.raises(ValueError, match="does not exist"):
        load_model(tmp_path / "nothing")
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


def test_processes_are_stored_by_name():
    for sde in (VPSDE(schedule="cosine"), VPSDE(t_min=1e-4)):
        assert build_sde(describe_sde(sde)) == sde
    with pytest.raises(ValueError, match="Straight cannot be stored"):
        describe_sde(Straight())
    with pytest.raises(ValueError, match="vp, subvp, ve"):
        build_sde({"name": "vpp"})
    with pytest.raises(ValueError, match="beta_mx"):
        build_sde({"name": "vp", "beta_mx": 3})
    assert isinstance(build_denoiser(SPEC), Denoiser)
