"""Conditions from data to samples: files, training, the audit, and cascades from the command line."""

import json

import numpy as np
import pytest
import torch

from score_sde.cli import main
from score_sde.config.config import read_config, read_run_config, resolve
from score_sde.evaluation.validation import Validation
from score_sde.run.cascade import cascade_seed
from score_sde.run.conditions import read_condition
from score_sde.run.folder import Run
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.guides import Guides, guided
from score_sde.run.items import open_split
from score_sde.training.spec import denoiser_spec
from sde import VPSDE, Denoiser, NoisyClassifier
from sde.checkpoint.models import load_model
from sde.checkpoint.spec import build_denoiser
from sde.data.statistics import spread
from sde.inverse.operators import SuperResolution
from sde.networks import NETWORKS
from sde.training.audit import audit
from sde.training.fit import fit
from sde.training.ignored_inputs import ignored_inputs
from sde.training.loss import denoising_loss
from sde.training.options import TrainingOptions
from sde.training.trainer import Trainer
from tests.batteries.networks import OWN, SMALL
from tests.score_sde.runs import call
from tests.sde.small_conditions import arrays
from tests.sde.small_data import config, load_dataset, refused

# One worker, so that what the tests share is trained once.
pytestmark = pytest.mark.xdist_group("conditional_runs")

CPU = torch.device("cpu")
TINY = ["--config.training.batch_size=32", "--config.training.log_every=10", "--config.model.network.channels=8"]


def toy(tmp_path, count=4000):
    """x = A v + 0.3 z, 2 from 3 numbers in units of their own."""
    rng = np.random.default_rng(1)
    v = rng.normal(size=(count, 3))
    x = v @ rng.normal(size=(3, 2)) + 0.3 * rng.normal(size=(count, 2))
    np.savez(tmp_path / "toy.npz", x=x, vector=v * [1, 100, 1e-3] + [5, -300, 2])
    return load_dataset(**config("points", root=tmp_path / "toy.npz", conditions=("vector",)))


def experiment(*overrides):
    from score_sde.config.config import config_path

    return resolve(read_config(config_path("points")), list(overrides))


def test_training_reaches_the_optimum(tmp_path):
    """Given v, x is normal with variance 0.09: no denoiser has a smaller error than that of its posterior mean."""
    train, test = toy(tmp_path)
    settings = experiment("--config.model.network.width=64", "--config.model.network.layers=2")
    spec = denoiser_spec(settings, train)
    torch.manual_seed(0)
    model = build_denoiser(json.loads(json.dumps(spec)))

    def loss(module, x0, cond, draws):
        return denoising_loss(module, x0, cond, draws, cond_dropout=0.1)

    options = TrainingOptions(steps=400, batch_size=128, lr=4e-3, ema_decay=0.98, lr_decay="cosine")
    trainer = Trainer(model, train, loss, options)
    fit(trainer, [])
    model.load_state_dict(trainer.ema.module_state(model))
    found = Validation(test, train, model.sde, "log_normal", "edm", CPU).losses(model)["by_noise"]
    scale = torch.tensor(train.transform.scale, dtype=torch.float64)
    for level in found:
        ratio, variance = level["noise_level"] ** 2, (0.3 / scale) ** 2
        optimum = (1 / model.sigma_data**2 + 1 / ratio) * (variance * ratio / (variance + ratio)).mean()
        assert level["loss"] < 1.4 * optimum + 0.06
    # Without v, all there is to know at the largest noise level is the mean of the data.
    assert found[-1]["loss"] < 0.3


def test_a_step_does_not_depend_on_its_parts(tmp_path):
    """Accumulated parts, and items read ahead by threads, train the same model with conditions of every kind."""
    path, _ = arrays(tmp_path)
    kinds = ("labels", "vector", "image", "sequence")
    data, _ = load_dataset(**config("points", root=path, conditions=kinds, condition_noise=(0, 0.5)))
    settings, states = experiment("--config.model.network.width=16", "--config.model.network.layers=1"), []
    for accumulate, workers in ((1, 0), (4, 0), (2, 2)):
        torch.manual_seed(0)
        model = build_denoiser(denoiser_spec(settings, data))
        options = TrainingOptions(steps=3, batch_size=24, gradient_accumulation=accumulate)
        trainer = Trainer(model, data, lambda *a: denoising_loss(*a, cond_dropout=0.4), options, workers=workers)
        fit(trainer, [])
        trainer.close()
        states.append(model.state_dict())
    for other in states[1:]:
        torch.testing.assert_close(other, states[0], rtol=1e-4, atol=1e-5)


class Deaf(torch.nn.Module):
    """A network that ignores one kind of condition."""

    def __init__(self, network, kind):
        super().__init__()
        self.network, self.kind = network, kind
        self.num_classes, self.conditions = network.num_classes, network.conditions

    def forward(self, x, c_noise, cond=None):
        if cond is not None:
            like = cond[self.kind]
            cond = cond | {self.kind: like.new_zeros(like.shape)}
        return self.network(x, c_noise, cond)


@pytest.mark.parametrize("name", OWN)
def test_the_audit_refuses_a_network_that_ignores_a_condition(tmp_path, name):
    path = tmp_path / "signals.npz"
    rng = np.random.default_rng(0)
    np.savez(path, x=rng.normal(size=(40, 2, 8)), vector=rng.normal(size=(40, 3)), image=rng.normal(size=(40, 1, 4)),
             sequence=rng.normal(size=(40, 5, 2)))  # fmt: skip
    kinds = ("vector", "image", "sequence")
    data, _ = load_dataset(**config("points", root=path, conditions=kinds, condition_noise=(0, 0.5)))
    network = NETWORKS[name]((2, 8), None, conditions=data.condition_shapes, **SMALL[name])
    model = Denoiser(network, build_denoiser(denoiser_spec(experiment(), data)).sde, "edm", data.sigma_data)
    assert ignored_inputs(model, (2, 8)) == []
    assert "conditions: vector 3, image 1x4, sequence 5x2, condition_noise 1" in audit(data, model)
    for kind in data.conditions:
        model.network = Deaf(network, kind)
        words = [f"its condition {kind} (the output is the same for two of them)",
                 f"the null {kind} (the output is the same for one and for none)"]  # fmt: skip
        assert ignored_inputs(model, (2, 8)) == words
        refused(f"the network ignores {', and '.join(words)}: use it in the network's forward, or train without "
                "conditions by config.model.conditional=False", audit, data, model)  # fmt: skip
    data.conditions["vector"][:, 1] = 7
    del data.condition_moments
    model.network = network
    with pytest.warns(UserWarning, match=r"1 of 3 features of the condition 'vector' are constant \(first: 1\)"):
        audit(data, model)
    assert denoiser_spec(experiment(), data)["conditions"]["vector"]["scale"][1] == 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Both stages of a cascade, the second trained long enough to heed its image."""
    root = tmp_path_factory.mktemp("cascade")
    for name, steps in (("small", 20), ("superres", 150)):
        assert main.main(["--mode", "train", "--config", f"digits_{name}", "--workdir", str(root / name), *TINY,
                          f"--config.training.steps={steps}", f"--config.training.sample_every={steps}",
                          f"--config.training.checkpoint_every={steps}"]) == 0  # fmt: skip
    return root


def sampled(capsys, runs, out, *flags, name="superres"):
    status, result, error = call(
        capsys, "--mode", "sample", "--workdir", runs / name, "--steps", 6, "--out", out, *flags
    )
    assert status == 0, error
    return np.load(result["numbers"]), result


def agreement(numbers):
    """Mean squared difference of the block means of what was drawn to their own image, over that to another's."""
    means = SuperResolution(2)(torch.from_numpy(numbers["x"]).float())
    image = torch.from_numpy(numbers["image"])
    return ((means - image).square().mean() / (means - image.roll(1, 0)).square().mean()).item()


def test_default_conditions_are_held_out_items(runs, tmp_path, capsys):
    numbers, result = sampled(capsys, runs, tmp_path / "a", "--num_samples", 20)
    _, held_out = load_dataset(**config("digits", conditions=("labels", "superres")))
    _, cond = held_out.batch(torch.linspace(0, 359, 20, dtype=torch.float64).round().long())
    assert numbers["labels"].tolist() == cond["labels"].tolist()
    np.testing.assert_array_equal(numbers["image"], cond["image"].numpy())
    assert agreement(numbers) < 0.4
    assert result["picture"].endswith("a.png")
    guided, _ = sampled(capsys, runs, tmp_path / "b", "--num_samples", 20, "--guidance_scale", 0)
    assert agreement(guided) > 0.6, "without its condition, it draws any digit"


def test_data_are_read_once(runs, monkeypatch):
    seen = []
    monkeypatch.setattr("score_sde.run.folder.load_dataset", lambda **data: seen.append(data) or load_dataset(**data))
    run = Run(runs / "superres", resolve(read_run_config(runs / "superres"), []), CPU)
    _, _, model = open_split(run, "test")
    for count in (2, 3):
        assert len(read_condition(run, Guides(run, model, UNGUIDED), None, None, count)["image"]) == count
    assert len(seen) == 1


def test_what_no_flag_gives(runs):
    """With --condition=none it is null, and where no flag gives anything there is no condition at all."""
    run = Run(runs / "small", resolve(read_run_config(runs / "small"), []), CPU)
    guides = Guides(run, run.model(), UNGUIDED)
    assert read_condition(run, guides, "3,1", "none", 3)["labels"].tolist() == [3, 1, 3]
    assert read_condition(run, guides, "none", "none", 3) is None
    assert read_condition(run, guides, None, "none", 3) is None
    assert read_condition(run, guides, "none", None, 3) is None
    assert read_condition(run, guides, None, None, 12)["labels"].tolist() == [*range(10), 0, 1]


def test_a_file_of_conditions(runs, tmp_path, capsys):
    _, held_out = load_dataset(**config("digits", conditions=("labels", "superres")))
    _, cond = held_out.batch(torch.tensor([3, 40]))
    file = tmp_path / "c.npz"
    np.savez(file, labels=cond["labels"].numpy(), image=cond["image"].numpy().astype(np.float64))
    numbers, _ = sampled(capsys, runs, tmp_path / "a", "--num_samples", 5, "--condition", file)
    assert numbers["labels"].tolist() == cond["labels"][[0, 1, 0, 1, 0]].tolist()
    np.testing.assert_array_equal(numbers["image"], cond["image"][[0, 1, 0, 1, 0]].numpy())
    np.savez(file, image=cond["image"].numpy())
    numbers, _ = sampled(capsys, runs, tmp_path / "a", "--num_samples", 5, "--condition", file, "--labels", "7,2")
    assert numbers["labels"].tolist() == [7, 2, 7, 2, 7]
    numbers, _ = sampled(capsys, runs, tmp_path / "a", "--num_samples", 5, "--condition", file, "--labels", "none")
    assert (numbers["labels"] == -1).all()
    free, _ = sampled(capsys, runs, tmp_path / "b", "--num_samples", 5, "--condition", "none")
    assert "image" not in free
    null, _ = sampled(capsys, runs, tmp_path / "d", "--num_samples", 5, "--guidance_scale", 0)
    np.testing.assert_array_equal(free["x"], null["x"])


def test_a_cascade(runs, tmp_path, capsys):
    flags = "--cascade", runs / "small", "--num_samples", 12, "--labels", "3,8", "--seed", 5
    numbers, _ = sampled(capsys, runs, tmp_path / "a", *flags)
    assert numbers["x"].shape == (12, 1, 8, 8)
    assert numbers["labels"].tolist() == [3, 8] * 6
    first = "--num_samples", 12, "--labels", "3,8", "--seed", cascade_seed(5)
    low, _ = sampled(capsys, runs, tmp_path / "b", *first, name="small")
    np.testing.assert_array_equal(numbers["image"], low["x"]), "the other run's own samples, labels and sampler"
    file = tmp_path / "c.npz"
    np.savez(file, image=low["x"], labels=low["labels"])
    second, _ = sampled(capsys, runs, tmp_path / "c", "--condition", file, "--num_samples", 12, "--seed", 5)
    np.testing.assert_array_equal(second["x"], numbers["x"])
    fewer, _ = sampled(capsys, runs, tmp_path / "a", *flags[:2], "--num_samples", 3, *flags[4:])
    assert (fewer["x"] == numbers["x"][:3]).mean() > 0.99, "sample i is the same whatever their number"
    other, _ = sampled(capsys, runs, tmp_path / "a", *flags[:-1], 6)
    assert not np.array_equal(other["x"], numbers["x"])
    plain, guided = (sampled(capsys, runs, tmp_path / "a", *flags, "--guidance_scale", w)[0]["x"] for w in (1, 2))
    assert guided.shape == (12, 1, 8, 8)
    np.testing.assert_array_equal(plain, numbers["x"])
    assert not np.array_equal(guided, plain)
    planned, _ = sampled(capsys, runs, tmp_path / "a", *flags, "--sampler", "auto")
    assert planned["x"].shape == (12, 1, 8, 8)


def test_mistakes_of_the_command_line(runs, tmp_path, capsys):
    small, superres, file = runs / "small", runs / "superres", tmp_path / "c.npz"

    def failed(sentence, *flags, name="superres", **held):
        np.savez(file, **held) if held else None
        status, _, error = call(capsys, "--mode", "sample", "--workdir", runs / name, "--num_samples", 4, *flags)
        assert status == 2
        assert sentence in error
        assert error.count("\n") == 1

    ours = "--condition", file
    failed("--labels=3: the model is conditioned on image as well", "--labels", "3")
    failed("holds 'text', but the model is conditioned on labels and image", *ours, text=np.zeros(3))
    failed("holds 'image', but the model is conditioned on labels: take it out", *ours, name="small",
           image=np.zeros((2, 1, 4, 4)))  # fmt: skip
    failed("the condition has no 'image', but the model is conditioned on labels and image", *ours, labels=np.arange(3))
    failed("'image' has shape (2, 1, 2, 2): the model takes (B, 1, 4, 4)", *ours, image=np.zeros((2, 1, 2, 2)))
    failed("'image' has shape (2, 4, 4): the model takes (B, 1, 4, 4)", *ours, image=np.zeros((2, 4, 4)))
    failed("'image' has shape (2, 16): needs (n, channels, *space)", *ours, image=np.zeros((2, 16)))
    failed(
        "has rows: image 2, labels 3; needs as many in each", *ours, image=np.zeros((2, 1, 4, 4)), labels=np.arange(3)
    )
    failed("label 12 is out of range", *ours, image=np.zeros((1, 1, 4, 4)), labels=np.array([12]))
    failed("label 0 is 0.5: store the numbers of", *ours, image=np.zeros((1, 1, 4, 4)), labels=np.full(1, 0.5))
    failed(
        "both give labels: choose one", *ours, "--labels", "3", image=np.zeros((1, 1, 4, 4)), labels=np.zeros(1, int)
    )
    failed("does not exist", "--condition", tmp_path / "nowhere.npz")
    (tmp_path / "text.npz").write_text("no arrays")
    failed("is not a readable .npz", "--condition", tmp_path / "text.npz")
    failed("both give the images: choose one", *ours, "--cascade", small)
    failed("is conditioned on labels, not on an image", "--cascade", small, name="small")
    failed("draws items of shape (1, 8, 8), but", "--cascade", superres)
    failed("is not a run folder: name one that draws images of shape (1, 4, 4)", "--cascade", tmp_path / "no")


@pytest.mark.parametrize("mode", ["restore", "edit"])
def test_items_with_all_their_conditions(runs, tmp_path, capsys, mode):
    """--labels=data is the classes and the images of the items; classes alone are not enough."""
    task = (
        ["--task", "sensing", "--samples_per_item", 1, "--repaint_steps", 1]
        if mode == "restore"
        else ["--start_time", 0.9]
    )
    start = ["--mode", mode, "--workdir", runs / "superres", "--items", "3,40", "--steps", 12, "--out", tmp_path / "a"]
    status, result, error = call(capsys, *start, *task, "--labels", "data", "--guidance_scale", 2)
    assert status == 0, error
    numbers = np.load(result["numbers"])
    _, held_out = load_dataset(**config("digits", conditions=("labels", "superres")))
    _, cond = held_out.batch(torch.tensor([3, 40]))
    assert numbers["labels"].tolist() == numbers["conditions"].tolist() == cond["labels"].tolist()
    found = torch.from_numpy(numbers["samples" if mode == "restore" else "x"])[:, 0].float()
    assert agreement({"x": found.numpy(), "image": cond["image"].numpy()}) < 0.4
    status, _, error = call(capsys, *start, *task, "--labels", 3)
    assert status == 2
    assert "--labels=3: the model is conditioned on image as well, which classes alone do not give" in error
    assert error.count("\n") == 1


def test_latents_of_items_with_all_their_conditions(runs, tmp_path, capsys):
    status, result, error = call(capsys, "--mode", "encode", "--workdir", runs / "superres", "--num_samples", 3,
                                 "--out", tmp_path / "e", "--labels", "data", "--rtol", 1e-2)  # fmt: skip
    assert status == 0, error
    numbers = np.load(result["numbers"])
    _, held_out = load_dataset(**config("digits", conditions=("labels", "superres")))
    x, cond = held_out.batch(spread(len(held_out), 3))
    assert np.array_equal(numbers["x"], x)
    assert numbers["labels"].tolist() == numbers["conditions"].tolist() == cond["labels"].tolist()


def test_density_given_what_is_no_class(tmp_path, capsys):
    toy(tmp_path, 200)
    start = ["--mode", "train", "--config", "points", f"--config.data.root={tmp_path / 'toy.npz'}", "--workdir",
             tmp_path / "run", "--config.data.conditions=('vector',)", "--config.training.steps=5",
             "--config.training.batch_size=32"]  # fmt: skip
    assert call(capsys, *start)[0] == 0
    status, result, error = call(capsys, "--mode", "likelihood", "--workdir", tmp_path / "run", "--num_samples", 4,
                                 "--labels", "data", "--rtol", 1e-2, "--atol", 1e-2)  # fmt: skip
    assert status == 0, error
    assert result["density"] == "p(x | y)"


def test_guidance_of_a_model_without_classes():
    model = Denoiser(NETWORKS["mlp"]((2,), width=8, layers=1, conditions={"vector": (3,)}), VPSDE())
    with pytest.raises(
        ValueError, match=r"--negative_labels=1: the model is conditioned on vector, and has no classes"
    ):
        guided(model, None, {"vector": torch.zeros(2, 3)}, GuidanceOptions(2.0, negative_labels="1"))
    classifier, labels = NoisyClassifier(torch.nn.Identity(), VPSDE(), 3), {"labels": torch.tensor([0, 1])}
    options = GuidanceOptions(classifier_scale=2.0)
    assert guided(model, classifier, labels, options).model is model, "labels are the classifier's alone"
    model.null_trained = False
    with pytest.raises(ValueError, match=r"^this model never trained its unconditional branch .*; give vector"):
        guided(model, classifier, labels, options)


def test_files_of_conditional_models(runs):
    model = load_model(runs / "superres" / "model.safetensors")
    assert model.conditions == {"image": (1, 4, 4)}
    data, _ = load_dataset(**config("digits", conditions=("labels", "superres")))
    mean, std = data.condition_moments["image"]
    assert model.standardization.image_shift.item() == pytest.approx(mean.item())
    assert model.standardization.image_scale.item() == pytest.approx(std.item())
    image = data.batch(torch.arange(500))[1]["image"]
    encoded = model.standardization({"image": image})["image"]
    assert abs(encoded.mean().item()) < 0.05
    assert abs(encoded.std().item() - 1) < 0.05
