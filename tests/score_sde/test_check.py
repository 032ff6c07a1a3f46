"""What --mode check says of runs with planted faults."""

import copy
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from samplers import DPMSolverPP, generate
from score_sde.cli import main
from score_sde.config.config import read_run_config, resolve
from score_sde.diagnosis.causes import best
from score_sde.diagnosis.diagnosis import diagnose, off_posterior_means
from score_sde.diagnosis.examination import of_posterior_means
from score_sde.modes.check import check, table
from score_sde.run.folder import Run
from sde import Denoiser
from sde.checkpoint.models import load_model, save_model
from sde.checkpoint.snapshots import stored_spec
from sde.checkpoint.spec import build
from sde.data.statistics import spread
from sde.data.toys import labeled_toys
from sde.guidance.conditional import Conditional
from tests.oracles.noise_network import NoiseOfGaussian
from tests.score_sde.runs import call, run_of

CPU = torch.device("cpu")


def train(folder, root, *overrides):
    arguments = ["--mode", "train", "--config", "points", "--workdir", folder, f"--config.data.root={root}",
                 "--config.training.steps=400", "--config.training.batch_size=64", "--config.training.lr=0.01",
                 "--config.training.ema_decay=0.98", "--config.training.checkpoint_every=400",
                 "--config.training.sample_every=400", "--config.training.log_every=100",
                 "--config.model.network.width=48", "--config.model.network.layers=2", *overrides]  # fmt: skip
    assert main.main([str(a) for a in arguments]) == 0
    return folder


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """Eight classes on a ring, and a run on them."""
    folder = tmp_path_factory.mktemp("check")
    x, labels = labeled_toys("ring", 4000)
    np.savez(folder / "ring.npz", x=x.numpy(), labels=labels.numpy())
    return train(folder / "run", folder / "ring.npz")


@pytest.fixture
def broken(healthy, tmp_path):
    """A copy of the run to break, its data with it."""
    shutil.copytree(healthy, tmp_path / "run")
    shutil.copy(healthy.parent / "ring.npz", tmp_path / "ring.npz")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"]["root"] = str(tmp_path / "ring.npz")
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    return tmp_path / "run"


def run_in(folder):
    return Run(folder, resolve(read_run_config(folder), []), CPU)


def checked(folder):
    return check(run_in(folder))


def rewrite(folder, change, checkpoint=True):
    """The run's files after ``change``, a function that alters a state dict in place."""
    path = folder / "model.safetensors"
    spec, state = stored_spec(path), dict(load_model(path).state_dict())
    change(state)
    save_model(path, "denoiser", spec, state)
    if checkpoint:
        for path in (folder / "checkpoints").glob("denoiser-*"):
            held = torch.load(path, weights_only=True)
            change(held["module"])
            change(held["ema"]["average"])
            torch.save(held, path)


def test_healthy_run(healthy, capsys):
    status, result, _ = call(capsys, "--mode", "check", "--workdir", healthy)
    assert status == 0
    assert result["faults"] == result["findings"] == []
    assert (result["step"], result["items"], len(result["levels"])) == (400, 256, 8)
    error = result["error"]
    assert error["averaged"] < error["averaged_none"] < 1
    assert result["averaging"]["from_checkpoint"] == 0
    (data, held_out), model, samples = (
        run_in(healthy).data(),
        load_model(healthy / "model.safetensors"),
        result["samples"],
    )
    labels = held_out.batch(spread(len(held_out), 256))[1]
    x = generate(Conditional(model, labels), DPMSolverPP(), 256, (2,), steps=20).x.double()
    assert samples["range"] == [x.min().item(), x.max().item()]
    for name, of in (("mean", lambda y: y.mean(0)), ("std", lambda y: y.std(0, correction=0))):
        assert samples[name] == pytest.approx(of(x).tolist(), rel=1e-6)
        items = data.batch(spread(len(data), 2000))[0].double()
        assert samples[f"data_{name}"] == pytest.approx(of(items).tolist(), rel=1e-6)
    assert checked(healthy)["levels"] == result["levels"]
    assert "no fault found" in capsys.readouterr().out


def double_the_data(folder):
    arrays = np.load(folder.parent / "ring.npz")
    np.savez(folder.parent / "ring.npz", x=2 * arrays["x"], labels=arrays["labels"])


def double_the_transform(folder):
    path = folder / "model.safetensors"
    spec, model = stored_spec(path), load_model(path)
    spec["transform"]["scale"] = [2 * scale for scale in spec["transform"]["scale"]]
    save_model(path, "denoiser", spec, model.state_dict())


def reset_average(folder, checkpoint=False):
    path = folder / "model.safetensors"
    spec = stored_spec(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = build("denoiser", spec)
        nn.init.normal_(fresh.network.head.weight, std=0.01)
    save_model(path, "denoiser", spec, fresh.state_dict())
    for path in (folder / "checkpoints").glob("denoiser-*") if checkpoint else ():
        held = torch.load(path, weights_only=True)
        held["ema"] |= {"average": dict(fresh.named_parameters()), "updates": 3}
        torch.save(held, path)


def silence_time(folder, checkpoint=True):
    def change(state):
        for name in state:
            if ".noise.layers.2" in name:
                state[name] = torch.zeros_like(state[name])

    rewrite(folder, change, checkpoint)


def permute_classes(folder, checkpoint=True):
    def change(state):
        for name in state:
            if name.endswith("label.table.weight"):
                state[name] = torch.cat([state[name][:1], state[name][1:].roll(3, 0)])

    rewrite(folder, change, checkpoint)


def other_schedule(folder):
    config = json.loads((folder / "config.json").read_text())
    config["sde"]["beta_max"] = 10.0
    (folder / "config.json").write_text(json.dumps(config))


def silence(folder):
    def change(state):
        for name in state:
            if name.startswith("network.head."):
                state[name] = torch.zeros_like(state[name])

    rewrite(folder, change)


def file_of_other_schedule(folder):
    """Whose noise at t_max is not all, which is no fault of this run."""
    path = folder / "model.safetensors"
    spec, model = stored_spec(path), load_model(path)
    spec["sde"]["beta_max"] = 4.0
    save_model(path, "denoiser", spec, model.state_dict())


FAULTS = {
    "data doubled": (double_the_data, "value range mismatch", "their scale is 2 times the model's"),
    "transform doubled": (double_the_transform, "value range mismatch", "their scale is 0.5 times the model's"),
    "average reset": (reset_average, "EMA too young", "% from the checkpoint's"),
    "average reset everywhere": (
        lambda folder: reset_average(folder, checkpoint=True), "EMA too young", "it has seen 3 of them"
    ),
    "time ignored": (silence_time, "network ignores time", "0.0e+00"),
    "time ignored in the model file": (lambda folder: silence_time(folder, False), "network ignores time", "0.0e+00"),
    "schedule changed": (
        other_schedule, "wrong schedule in the config",
        "sde.beta_max is 10.0 there, 20.0 in it; the checkpoint agrees with the model file",
    ),
    "head zeroed everywhere": (silence, "undertrained", "its output is near 0"),
    "model file of another schedule": (
        file_of_other_schedule, "wrong schedule in the config", "so the model file is another run's"
    ),
    "classes permuted": (permute_classes, "labels shuffled", "and more than none"),
    "classes permuted in the model file": (lambda folder: permute_classes(folder, False), "labels shuffled", ""),
}  # fmt: skip


@pytest.mark.parametrize("planted", FAULTS)
def test_the_planted_fault_is_named_and_no_other(planted, broken):
    plant, fault, words = FAULTS[planted]
    plant(broken)
    result = checked(broken)
    assert result["faults"] == [fault], result["findings"]
    assert words in result["findings"][0]["evidence"]


def test_the_remedy_of_a_reset_average(broken):
    reset_average(broken)
    (broken / "model.safetensors").unlink()
    assert main.main(["--mode", "train", "--workdir", str(broken)]) == 0
    assert checked(broken)["faults"] == []


def test_labels_shuffled_before_training(healthy, tmp_path):
    arrays = np.load(healthy.parent / "ring.npz")
    order = np.random.default_rng(0).permutation(len(arrays["labels"]))
    np.savez(tmp_path / "shuffled.npz", x=arrays["x"], labels=arrays["labels"][order])
    result = checked(train(tmp_path / "run", tmp_path / "shuffled.npz"))
    assert result["faults"] == ["labels shuffled"], result["findings"]


def test_a_run_without_checkpoints_is_checked_all_the_same(broken, capsys):
    shutil.rmtree(broken / "checkpoints")
    result = checked(broken)
    assert result["faults"] == []
    assert (result["averaging"], result["error"].get("raw"), result["step"]) == (None, None, None)
    assert "checkpoints holds no training state" in capsys.readouterr().out
    (broken / "checkpoints").mkdir()
    (broken / "checkpoints" / "denoiser-00000400.pt").write_bytes(b"damaged")
    assert checked(broken)["faults"] == []
    assert "none is left to go on from" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_said(broken, capsys):
    newest = max((broken / "checkpoints").glob("denoiser-*"))
    (newest.parent / "denoiser-00000999.pt").write_bytes(b"half written")
    status, result, _ = call(capsys, "--mode", "check", "--workdir", broken)
    assert (status, result["step"]) == (0, 400)
    assert "denoiser-00000999.pt is damaged or cannot be read" in result["missing"]
    lines = table(run_in(broken), result)
    assert "step 400, " in lines[0]
    assert "was passed over; error of" in lines[0]


def test_weights_that_are_not_finite(broken, capsys):
    def spoil(state):
        state["network.head.weight"].view(-1)[:3] = torch.nan

    rewrite(broken, spoil, checkpoint=False)
    status, _, error = call(capsys, "--mode", "check", "--workdir", broken)
    assert status == 2
    assert "3 of its weights are NaN or infinite, so that nothing can be measured: delete it" in error
    (broken / "model.safetensors").rename(broken / "other.safetensors")
    status, _, error = call(capsys, "--mode", "check", "--workdir", broken, "--weights", "other.safetensors")
    assert status == 2
    assert "so that nothing can be measured: name other --weights" in error


def test_data_of_another_shape(broken, tmp_path, capsys):
    np.save(tmp_path / "other.npy", np.random.default_rng(0).normal(size=(50, 3)))
    status, _, error = call(
        capsys, "--mode", "check", "--workdir", broken, f"--config.data.root={tmp_path / 'other.npy'}"
    )
    assert status == 2
    assert "the model has items of shape (2,), the data (3,)" in error


def test_data_of_other_classes(broken, tmp_path, capsys):
    x, labels = labeled_toys("ring", 2000)
    data = f"--config.data.root={tmp_path / 'other.npz'}"
    np.savez(tmp_path / "other.npz", x=x, labels=np.arange(len(labels)) % 50)
    status, _, error = call(capsys, "--mode", "check", "--workdir", broken, data)
    assert status == 2
    assert "the model has 8 classes, the data 50: name the data of training" in error
    np.savez(tmp_path / "other.npz", x=x, labels=np.zeros(len(labels), int))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call(capsys, "--mode", "check", "--workdir", broken, data)[0] == 0


@pytest.fixture(scope="module")
def measured(healthy):
    return checked(healthy)


def changed(m, **changes):
    m = copy.deepcopy(m)
    for path, value in changes.items():
        *above, last = path.split("__")
        inner = m
        for key in above:
            inner = inner[key]
        inner[last] = value
    return m


@pytest.mark.parametrize(("changes", "fault", "words"), [
    ({"null_trained": False, "conditional": True}, "trained without dropout", "config.training.cond_dropout=0.1"),
    ({"conditions__gain_of_none": [-0.1, 0.01]}, "unconditional branch untrained", "worse than with another item's"),
    ({"sensitivity__other": 1e-6}, "network ignores its condition", "1.0e-06"),
    ({"sensitivity__other": 0.0, "conditions__gain": [0.0, 0.0], "conditions__gain_of_none": [0.0, 0.0]},
     "network ignores its condition", "0.0e+00"),
    ({"error__training": 0.05}, "memorized", "the error of training items is"),
    ({"error__training": 0.12, "error_stderr__training": 0.001, "error_stderr__averaged": 0.001}, "memorized", "times"),
    ({"samples__nearest": 0.2}, "memorized", "samples are 0.20 times as far"),
    ({"prior": [0.01, 0.02]}, "prior mismatch", "between 1.0e-02 and 2.0e-02 nats"),
    ({"samples__std": [0.5, 0.5]}, "samples off", "channel 0 has standard deviation 0.5"),
    ({"samples__mean": [1.0, 0.0]}, "samples off", "channel 0 has mean 1,"),
    ({"samples__nearest": 1.5}, "samples off", "the median is 1.50 times as far from training items"),
    ({"error__linear": 0.1}, "undertrained", "the best linear filter 0.100"),
    ({"range__sigma_data": [1.0, 1.2]}, "value range mismatch", "a factor of 1.2"),
    ({"range__model__num_levels": 17}, "value range mismatch", "the model was trained on 17 levels"),
    ({"disagreements": [{"key": "network.width", "config": 8, "model": 48, "checkpoint": 8}]},
     "config of another model", "the model file is another run's"),
    ({"disagreements": [{"key": "num_classes", "config": None, "model": 8, "checkpoint": 8}]},
     "config of another model", "so config.json or the data were changed after training"),
    ({"averaging__updates": 400, "error__averaged": 0.5, "error__averaged_none": 1.5},
     "EMA too young", "steps old on average, of 400"),
])  # fmt: skip
def test_every_sentence(measured, changes, fault, words):
    findings = diagnose(changed(measured, **changes))
    assert [finding.fault for finding in findings] == [fault]
    assert words in " ".join(findings[0])


@pytest.mark.parametrize(("changes", "words"), [
    ({"steps": 900}, "training is at step 400 of 900"),
    ({"held_out_losses": [2.0, 1.5, 1.0]}, "fell by 33%: train for more"),
    ({"held_out_losses": [1.0, 1.0, 0.999]}, "try a larger network"),
    ({"held_out_losses": []}, "train for more steps, or"),
])  # fmt: skip
def test_remedies_of_an_undertrained_run(measured, changes, words):
    (finding,) = diagnose(changed(measured, error__linear=0.1, **changes))
    assert words in finding.remedy


def test_one_cause_hides_its_consequences(measured):
    """A network that ignores time has a large error, too; what is left to say is said of other things."""
    m = changed(measured, sensitivity__time=0.0, error__linear=0.1, samples__nearest=0.1, null_trained=False,
                prior=[1.0, 2.0])  # fmt: skip
    assert [f.fault for f in diagnose(m)] == ["network ignores time", "trained without dropout", "prior mismatch"]


def test_a_gap_to_the_training_items_must_be_certain(measured):
    assert not diagnose(changed(measured, error__training=0.05, error_stderr__training=0.2))
    assert not diagnose(changed(measured, error__training=0.16, error_stderr__training=0.0))


def test_few_items_say_nothing_of_labels(measured, healthy, capsys):
    """Nor of conditions, where no item has another one, as in data of one class."""
    assert not diagnose(changed(measured, sensitivity__other=0.0, conditions__items=0))
    status, _, error = call(capsys, "--mode", "check", "--workdir", healthy, "--num_samples", 15)
    assert status == 2
    assert "--num_samples=15: a fault cannot be told from chance with fewer than 16 items" in error
    assert not diagnose(changed(measured, conditions__gain=[-1.0, 0.1], conditions__items=20))
    assert diagnose(changed(measured, conditions__gain=[-1.0, 0.1]))[0].fault == "labels shuffled"
    assert best(measured) == measured["error"]["averaged"]
    assert best(changed(measured, error__averaged_none=0.01)) == 0.01


def test_signals_without_classes_or_checkpoints(tmp_path, capsys):
    """A run of another shape whose weights never saw data."""
    run = run_of("arrays", tmp_path)
    result = check(run)
    assert result["faults"] == ["undertrained"]
    assert (result["conditions"], result["conditional"], result["items"]) == (None, False, 6)
    assert len(result["samples"]["mean"]) == 2
    assert "in channel 0" in capsys.readouterr().out


def test_posterior_means_that_left_the_law_of_the_data(healthy):
    """A network that predicts noise with an error: D is off by sigma / alpha of it, and the levels are named."""
    run = run_in(healthy)
    training, _ = run.data()
    sde = run.model().sde
    x0 = training.transform.encode(training.batch(spread(len(training), 64))[0])
    found = {}
    for error in (0.001, 0.05):
        model = Denoiser(NoiseOfGaussian(sde, error, x0.std().item()), sde, "noise", 1.0, training.transform)
        levels = of_posterior_means(model, training, CPU)
        samples = {"std": [0.5, 3.0, 0.0], "data_std": [0.5, 1.0, 0.0]}
        found[error] = off_posterior_means({"posterior_means": levels, "samples": samples})
        worst = error * levels[0]["noise_level"]
        assert levels[0]["std"] == pytest.approx(worst, rel=0.3 if error < 0.01 else 0.05)
    assert found[0.001] is None
    said = found[0.05].evidence
    assert said.endswith("; of samples a channel is spread 3 times as far as the data")
    off = [level for level in levels if 0.05 * level["noise_level"] > 2 * level["data_std"]]
    assert f"at {len(off)} of 25 noise levels, sigma/alpha from {off[-1]['noise_level']:.3g} to 152" in said
    assert f"standard deviation is {levels[0]['std']:.3g} at 152" in said
