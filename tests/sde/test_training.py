"""Training: which items a step sees, what continuing means, averages, files, failures."""

import copy
import json
import math
import pickle

import pytest
import torch

from sde import VPSDE, Denoiser
from sde.checkpoint.models import load_model, save_model
from sde.checkpoint.spec import build, build_denoiser, build_sde, describe_sde
from sde.checkpoint.states import Checkpoints
from sde.data import Dataset
from sde.data.transform import Transform
from sde.training.ema import Averages
from sde.training.fit import fit
from sde.training.loss import BatchNoise, denoising_loss
from sde.training.options import TrainingOptions
from sde.training.trainer import Trainer
from tests.oracles.processes import Straight
from tests.sde.small_training import SPEC, dataset, same, trainer

CLASSIFIER_KEYS = ("network", "event_shape", "num_classes", "sde", "sigma_data")


@pytest.mark.parametrize("options", [{"optimizer": "adam"}, {"optimizer": "adamw"}, {"gradient_accumulation": 4}])
def test_continuing_equals_never_stopping(tmp_path, options):
    straight = trainer(**options)
    fit(straight, [])
    first = trainer(**options)
    with torch.random.fork_rng():
        for _ in range(10):
            first.training_step()
    states = Checkpoints(tmp_path, "denoiser")
    states.save(first.state_dict())
    second = trainer(**options)
    torch.manual_seed(99)
    second.load_state_dict(states.load()[0])
    fit(second, [])
    assert same(straight.state_dict(), second.state_dict())


def test_parts_of_a_batch_add_up_to_it():
    """Accumulated gradients are those of the whole batch, whose items keep their random numbers (without dropout)."""
    whole, parts = trainer(1, dropout=0.0), trainer(1, dropout=0.0, gradient_accumulation=4)
    steps = [run.training_step() for run in (whole, parts)]
    assert torch.equal(steps[0].times, steps[1].times)
    torch.testing.assert_close(steps[0].losses, steps[1].losses)
    for one, other in zip(whole.parameters.values(), parts.parameters.values(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_parts_count_once_where_gradients_are_not_clipped():
    """Clipping would bring a sum of parts in the place of their mean to the same norm."""
    whole, parts = (
        trainer(1, dropout=0.0, max_grad_norm=0.0, gradient_accumulation=count).training_step() for count in (1, 4)
    )
    torch.testing.assert_close(parts.norm, whole.norm)


def test_where_each_part_of_a_step_acts():
    """A step of Adam moves by its own learning rate, warmed up; the average follows the weights that it arrives at."""
    run = trainer(1, dropout=0.0, optimizer="adam", lr=0.1, lr_decay="cosine")
    before = [p.detach().clone() for p in run.parameters.values()]
    run.training_step()
    average = run.ema.model_average
    for p, start, mean in zip(run.parameters.values(), before, average.average.values(), strict=True):
        moved, gradient = p.detach() - start, p.grad
        # The first step of Adam is lr sign(g), where g is not small; a fifth of 0.1 at the first of five to warm up.
        large = gradient.abs() > 1e-4
        torch.testing.assert_close(moved[large], -0.02 * gradient[large].sign(), rtol=1e-3, atol=0)
        torch.testing.assert_close(mean, start + average.weight() * moved)
    assert sum(int((p.grad.abs() > 1e-4).sum()) for p in run.parameters.values()) > 10


def test_what_adam_is_told():
    """Its second step from m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, unbiased, with eps beside the root of v; and
    in a continued run, whatever the state had."""
    run = trainer(2, dropout=0.0, optimizer="adam", lr_decay="none", adam_betas=(0.5, 0.8), adam_eps=0.01, lr=0.1)
    start = [p.detach().clone() for p in run.parameters.values()]
    run.training_step()
    first = [p.grad.clone() for p in run.parameters.values()]
    between = [p.detach().clone() for p in run.parameters.values()]
    other = trainer(2, dropout=0.0, lr_decay="none")
    other.load_state_dict(run.state_dict())
    assert other.optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    assert other.optimizer.param_groups[0]["eps"] == 1e-8
    run.training_step()
    for p, g, before, middle in zip(run.parameters.values(), first, start, between, strict=True):
        torch.testing.assert_close(middle, before - 0.02 * g / (g.abs() + 0.01), rtol=1e-4, atol=1e-6)
        m, v = (0.5 * 0.5 * g + 0.5 * p.grad) / 0.75, (0.8 * 0.2 * g**2 + 0.2 * p.grad**2) / 0.36
        torch.testing.assert_close(p.detach(), middle - 0.04 * m / (v.sqrt() + 0.01), rtol=1e-4, atol=1e-6)


def test_every_part_of_every_step_has_its_own_dropout():
    """Numbers of the global state, which dropout layers draw from, as the loss finds it."""
    run, seen = trainer(5, gradient_accumulation=2), []
    loss = run.loss

    def watched(*arguments):
        with torch.random.fork_rng():
            seen.append(torch.rand(()).item())
        return loss(*arguments)

    run.loss = watched
    fit(run, [])
    assert len(set(seen)) == len(seen) == 10


def test_rehearsal_changes_nothing():
    straight, rehearsed = trainer(3), trainer(3)
    rehearsed.dry_run()
    fit(straight, [])
    fit(rehearsed, [])
    assert same(straight.state_dict(), rehearsed.state_dict())


@pytest.mark.parametrize("spoil", ["loss", "gradient"])
def test_not_finite_steps_are_skipped(spoil):
    """As if the optimizer had not been called: weights, moments and its counter stay."""
    run = trainer(20)
    run.training_step()
    before = copy.deepcopy(run.state_dict())

    def broken(model, x0, labels, draws):
        losses = denoising_loss(model, x0, labels, draws)
        # An infinite slope at a finite value, or the value itself.
        return losses + (losses.detach() - losses).sqrt() if spoil == "gradient" else losses * math.nan

    whole, run.loss = run.loss, broken
    step = run.training_step()
    assert step.skipped
    assert step.loss.isfinite() == (spoil == "gradient")
    assert not step.norm.isfinite()
    after = run.state_dict()
    assert same(before["module"], after["module"])
    assert same(before["optimizer"]["state"], after["optimizer"]["state"])
    run.loss = whole
    assert not run.training_step().skipped
    assert not same(before["module"], run.state_dict()["module"])


def test_another_architecture_is_named():
    state = trainer().state_dict()
    other = build_denoiser({**SPEC, "network": {**SPEC["network"], "width": 8}})
    run = Trainer(other, dataset(), denoising_loss, TrainingOptions(batch_size=8))
    with pytest.raises(ValueError, match=r"network\.encoder.* is \(\d+.*\) there and \(\d+.*\) here"):
        run.load_state_dict(state)
    short = {**state, "module": {k: v for k, v in state["module"].items() if "head" not in k}}
    with pytest.raises(ValueError, match=r"network\.head\.bias is missing there and \(3,\) here"):
        trainer().load_state_dict(short)


def test_global_random_state_is_restored():
    run = trainer(3)
    before = torch.get_rng_state()
    fit(run, [])
    assert torch.equal(before, torch.get_rng_state())


def test_every_epoch_is_a_permutation():
    run = trainer()
    stream = torch.cat([run.batches.indices(8 * step) for step in range(23)])
    epochs = stream.view(8, 23)
    assert all(torch.equal(epoch.sort().values, torch.arange(23)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_learning_rate():
    options = TrainingOptions(steps=100, batch_size=7, lr=1.0, warmup_steps=10, lr_decay="cosine")
    assert options.lr_at(0) == 0.1
    assert options.lr_at(7 * 50) == pytest.approx(0.5)
    assert options.lr_at(7 * 100) == pytest.approx(0)
    assert TrainingOptions(steps=100, lr=1.0, warmup_steps=0, lr_decay="none").lr_at(99) == 1
    # A function of the items seen: twice the batch, half the steps.
    double = TrainingOptions(steps=50, batch_size=14, lr=1.0, warmup_steps=5, lr_decay="cosine")
    assert double.lr_at(7 * 60) == pytest.approx(options.lr_at(7 * 60))


def test_training_learns():
    """Of data at a single point, nothing stays unknown: the loss falls far below that of the untrained network."""
    run = trainer(200, lr=1e-2)
    run.data.items.fill_(2.0)
    draws = BatchNoise.draw(run.module.sde, run.data.items.shape, torch.Generator().manual_seed(0))
    start = denoising_loss(run.module, run.data.items, None, draws).mean()
    fit(run, [])
    after = denoising_loss(run.module.eval(), run.data.items, None, draws).mean()
    assert after < 0.2 * start


def test_not_finite_weights_are_not_saved():
    run = trainer(2)
    with torch.no_grad():
        next(run.module.parameters())[0] = math.inf
    with pytest.raises(FloatingPointError, match="not finite after step 0"):
        run.state_dict()


@pytest.mark.parametrize(("options", "words"), [
    ({"optimizer": "sgd"}, "adam, adamw"), ({"lr": 0.0}, "positive"), ({"steps": -1}, "positive"),
    ({"gradient_accumulation": 3}, "batch_size = 8 .*gradient_accumulation = 3 parts.*: nearest is 6 or 9"),
    ({"time_distribution": "log"}, "log_normal"),
    ({"max_grad_norm": -1.0}, "zero or more"), ({"lr_decay": "linear"}, "none, cosine"), ({"ema_decay": 1.0}, "ema"),
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


def test_names_of_wrapped_networks(tmp_path):
    model = build_denoiser(SPEC)
    state = {name.replace("network.", "module.network._orig_mod.module."): v for name, v in model.state_dict().items()}
    save_model(tmp_path / "model.safetensors", "denoiser", SPEC, state)
    assert same(load_model(tmp_path / "model.safetensors").state_dict(), model.state_dict())


@pytest.mark.parametrize("kind", ["denoiser", "classifier"])
def test_a_training_state_is_a_model(tmp_path, kind):
    """That of the model file of its step, to the last bit."""
    spec = SPEC if kind == "denoiser" else {name: value for name, value in SPEC.items() if name in CLASSIFIER_KEYS}
    module = build(kind, spec)
    averages = Averages(module, 0.5)
    for p in module.parameters():
        torch.nn.init.normal_(p)
    averages.update(module)
    state = {"step": 1, "module": module.state_dict(), "ema": averages.state_dict(), "spec": json.dumps(spec)}
    path = Checkpoints(tmp_path, kind).save(state)
    save_model(tmp_path / "model.safetensors", kind, spec, averages.module_state(module))
    found, expected = load_model(path, kind), load_model(tmp_path / "model.safetensors", kind)
    assert same(found.state_dict(), expected.state_dict())
    assert not same(found.state_dict(), module.state_dict())
    assert not found.training
    other = "classifier" if kind == "denoiser" else "denoiser"
    with pytest.raises(ValueError, match=f"holds a {kind} in format 1: needs a {other}"):
        load_model(path, other)
    flipped = bytearray(path.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match="its checksums are wrong"):
        load_model(path, kind)


def test_other_files_than_models(tmp_path, recwarn):
    run = trainer()
    torch.save(run.optimizer.state_dict(), tmp_path / "opt.pt")
    torch.save(run.state_dict(), tmp_path / "state.pt")
    torch.save([1], tmp_path / "list.pt")
    torch.save(run.module, tmp_path / "pickled.pt", pickle_protocol=4)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": 1}, protocol=4))
    (tmp_path / "shards.pt").mkdir()
    for name, words in (("opt", "an optimizer's state with state, param_groups"),
                        ("state", "a file of torch.save with step, seen, skipped, module"),
                        ("list", "a file of torch.save with a list"), ("shards", "a folder, as the states of sharded"),
                        ("pickled", "damaged or not a safetensors file"),
                        ("plain", "damaged or not a safetensors file")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name}.pt is {words}.*: name a model.safetensors") as caught:
            load_model(tmp_path / f"{name}.pt")
        assert len(str(caught.value).splitlines()) == 1
    assert not recwarn.list


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


def test_clipped_steps_are_those_of_clipped_gradients():
    """The first step of Adam is one of plain Adam on gradients scaled to the norm."""
    clipped, plain = trainer(1, dropout=0.0, max_grad_norm=1e-3), trainer(1, dropout=0.0, max_grad_norm=0.0)
    norm = plain.training_step().norm
    gradients = [p.grad.clone() for p in plain.parameters.values()]
    assert norm > 1
    assert clipped.training_step().norm == norm
    moments = [clipped.optimizer.state[p]["exp_avg"] for p in clipped.parameters.values()]
    for moment, gradient in zip(moments, gradients, strict=True):
        torch.testing.assert_close(moment, 0.1 * gradient * 1e-3 / norm, rtol=1e-4, atol=1e-12)
    # Gradients within the norm stay as they are.
    within = trainer(1, dropout=0.0, max_grad_norm=2 * norm.item())
    within.training_step()
    for p, gradient in zip(within.parameters.values(), gradients, strict=True):
        torch.testing.assert_close(within.optimizer.state[p]["exp_avg"], 0.1 * gradient)


def test_moments_of_a_continued_run_lie_in_memory_as_the_weights():
    from sde.networks import UNet

    network = UNet((1, 4, 4), None, channels=8, channel_mult=(1,), num_res_blocks=1, attention_resolutions=())
    data = Dataset(torch.randn(8, 1, 4, 4), None, None, Transform())
    options = TrainingOptions(steps=2, batch_size=4)
    trainer = Trainer(Denoiser(network, VPSDE()), data, denoising_loss, options)
    trainer.training_step()
    state = trainer.state_dict()
    network.to(memory_format=torch.channels_last)
    trainer = Trainer(Denoiser(network, VPSDE()), data, denoising_loss, options)
    trainer.load_state_dict(state)
    for parameter, moments in trainer.optimizer.state.items():
        assert moments["exp_avg"].stride() == moments["exp_avg_sq"].stride() == parameter.stride()
    assert any(p.ndim == 4 and not p.is_contiguous() for p in trainer.optimizer.state)


class Halves(torch.nn.Module):
    """A network of two layers, the first of which is frozen, with dropout in both."""

    num_classes = None

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5)).requires_grad_(False)
        self.second = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))

    def forward(self, x, c_noise, cond=None):
        return self.second(self.first(x)) + c_noise[:, None]


def test_frozen_parameters_are_neither_optimized_nor_averaged(generator):
    data = Dataset(torch.randn(40, 2, generator=generator), None, None, Transform())
    model = Denoiser(Halves(), VPSDE(), event_shape=(2,))
    trainer = Trainer(model, data, denoising_loss, TrainingOptions(steps=4, batch_size=8, weight_decay=0.5, lr=0.1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(3):
        trainer.training_step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"network.second.0.weight", "network.second.0.bias"} == {*trainer.parameters}
    assert trainer.ema.model_average.average.keys() == moved
    modes = {name: module.training for name, module in model.network.named_modules() if name.endswith(".1")}
    assert modes == {"first.1": False, "second.1": True}
    averaged = trainer.ema.module_state(model)
    assert torch.equal(averaged["network.first.0.weight"], before["network.first.0.weight"])
    again = Denoiser(Halves(), VPSDE(), event_shape=(2,))
    other = Trainer(again, data, denoising_loss, TrainingOptions(steps=4, batch_size=8, weight_decay=0.5, lr=0.1))
    other.load_state_dict(copy.deepcopy(trainer.state_dict()))
    for one in (trainer, other):
        one.training_step()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="every parameter of the module is frozen"):
        Trainer(model.requires_grad_(False), data, denoising_loss, TrainingOptions(steps=4, batch_size=8))
