"""Runs in latents: trained on those of an autoencoder, everything outside stays in data units."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from samplers import evidence_bound
from score_sde.cli import main
from score_sde.config.config import config_path, read_config, resolve
from score_sde.diagnosis.examination import linear_filter
from score_sde.evaluation.denoising_errors import DenoisingErrors
from score_sde.run.folder import Run
from score_sde.run.items import encoded_items
from score_sde.run.latents import with_codes
from sde import VPSDE, Denoiser
from sde.autoencoder import LatentTransform, LinearAutoencoder, in_latents
from sde.checkpoint.models import load_model, save_model
from sde.data import Dataset
from sde.data.statistics import spread
from sde.data.transform import Transform
from sde.networks import MLP
from sde.training.augmentation import Augmentation
from sde.training.loss import BatchNoise
from sde.training.options import TrainingOptions
from sde.training.trainer import Trainer
from tests.oracles import simulated_device as sim
from tests.score_sde.runs import call, made_once

pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE, INSIDE, COUNT = (1, 4, 6), (3, 2, 2), 220
TRAIN = ["--config.training.steps=4", "--config.training.batch_size=16", "--config.training.checkpoint_every=2",
         "--config.training.sample_every=4", "--config.training.log_every=2", "--config.training.compile=off",
         "--config.training.lr_decay=none",
         "--config.training.precision=float32", "--config.training.memory_format=contiguous",
         "--config.model.network.name=mlp", "--config.model.network.width=16",
         "--config.model.network.layers=1"]  # fmt: skip


def autoencoder_of(shape=SHAPE, inside=INSIDE, std=0.1):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(int(np.prod(shape)), int(np.prod(inside)), generator=generator)
    return LinearAutoencoder.of(torch.linalg.qr(matrix)[0].T, shape, inside, std=std)


def keep_autoencoder(folder, made, outer):
    folder.mkdir(exist_ok=True)
    network = {key: value for key, value in made.spec.items() if key != "event_shape"}
    spec = {"network": network, "event_shape": list(made.event_shape), "outer": outer}
    save_model(folder / "autoencoder.safetensors", "autoencoder", spec, made.state_dict())


LEVELS = {"shift": [8.0], "scale": [8.0], "levels": 16}


def images(seed=0):
    """Gray images of 16 levels, of which those of the second class are brighter."""
    labels = np.arange(COUNT) % 2
    x = np.random.default_rng(seed).integers(0, 11, (COUNT, *SHAPE)) + 5 * labels.reshape(-1, 1, 1, 1)
    return {"x": x, "labels": labels}


def command(folder, *more):
    return ["--mode", "train", "--config", "arrays", "--workdir", folder, f"--config.data.root={folder / 'x.npz'}",
            "--config.data.num_levels=16", "--config.data.test_fraction=0.25", "--config.model.autoencoder=own",
            *TRAIN, *more]  # fmt: skip


@pytest.fixture(scope="module")
def latent(tmp_path_factory):
    """A run of gray images of 16 levels in two classes, in latents of a linear autoencoder."""

    def make(folder):
        keep_autoencoder(folder, autoencoder_of(), LEVELS)
        np.savez(folder / "x.npz", **images())
        assert main.main([str(a) for a in command(folder)]) == 0

    folder = tmp_path_factory.mktemp("runs") / "latent"
    shutil.copytree(made_once(tmp_path_factory, "latent", make), folder)
    return folder


def options_of(folder):
    return Run(folder, resolve(json.loads((folder / "config.json").read_text()), []), torch.device("cpu"))


def test_the_file_of_the_model_is_enough_to_sample(latent, tmp_path, capsys):
    model = load_model(latent / "model.safetensors")
    assert isinstance(model.transform, LatentTransform)
    assert model.event_shape == SHAPE
    assert model.sigma_data == pytest.approx(1, abs=1e-4)
    own, stored = model.transform.autoencoder.state_dict(), load_file(latent / "autoencoder.safetensors")
    assert all(torch.equal(own[name], value) for name, value in stored.items() if name != "noise_std")
    assert not any(p.requires_grad for p in model.transform.parameters())
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copy(latent / name, alone / name)
    status, result, err = call(capsys, "--mode", "sample", "--workdir", alone, "--num_samples", 3, "--steps", 3)
    assert status == 0, err
    x = np.load(result["numbers"])["x"]
    assert x.shape == (3, *SHAPE)
    assert (x == x.round()).all()
    assert x.min() >= 0
    assert x.max() <= 15


def test_training_goes_on_exactly(latent, tmp_path, capsys):
    for name in ("x.npz", "autoencoder.safetensors"):
        shutil.copy(latent / name, tmp_path / name)
    assert call(capsys, *command(tmp_path, "--config.training.steps=2"))[0] == 0
    # What is in the model is not asked of the folder again.
    (tmp_path / "autoencoder.safetensors").unlink()
    assert call(capsys, *command(tmp_path))[0] == 0
    one, two = (load_file(folder / "model.safetensors") for folder in (latent, tmp_path))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    state = torch.load(tmp_path / "checkpoints" / "denoiser-00000004.pt", weights_only=True)
    assert not any(name.startswith("transform.") for name in state["ema"]["average"])


def test_cached_latents_train_as_others_do(latent, tmp_path, capsys):
    run = options_of(latent)
    data, _ = run.data()
    options = TrainingOptions(steps=3, batch_size=16)
    cached = with_codes(data, tmp_path, run.world)
    assert with_codes(data, tmp_path, run.world).codes.equal(cached.codes)
    seen = []
    for part in (data, cached):
        trainer = Trainer(load_model(latent / "model.safetensors"), part, lambda *a: None, options)
        seen.append([trainer.micro_batch(0) for trainer.step in range(3)])
        trainer.close()
    for (x, cond, draws), (y, told, other) in zip(*seen, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)
        assert torch.equal(cond["labels"], told["labels"])
        assert torch.equal(draws.z, other.z)
    # A draw of the posterior, and another one each time.
    mean = run.model().transform.encode(data.transform.dequantize(data.batch(trainer.batches.indices(0))[0], 0.5))
    assert (seen[0][0][0] - mean).std() == pytest.approx(0.1 / data.transform.scale.mean().item(), rel=0.3)
    # The run keeps them where the key says so, and refuses those of other items.
    folder = tmp_path / "kept"
    shutil.copytree(latent, folder)
    status, _, err = call(capsys, *command(folder, "--config.data.cache_latents=True", "--config.training.steps=5"))
    assert status == 0, err
    assert (folder / "latents.safetensors").exists()
    np.savez(tmp_path / "x.npz", **images(1))
    status, _, err = call(capsys, *command(folder, "--config.data.cache_latents=True", "--config.training.steps=6",
                                           f"--config.data.root={tmp_path / 'x.npz'}"))  # fmt: skip
    assert status == 2
    assert "holds latents of other items: remove it" in err


def test_items_are_augmented_before_they_are_encoded():
    """Half of the latents are those of mirrored items, and none are mirrored latents."""
    autoencoder = autoencoder_of(std=0.0)
    x = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(0))
    outer = Transform((0.5,), (2.0,))
    data = in_latents(Dataset(x, None, None, outer), LatentTransform(autoencoder, outer))
    model = Denoiser(MLP(INSIDE), VPSDE(), transform=data.transform)
    trainer = Trainer(model, data, lambda *a: None, TrainingOptions(batch_size=64), augmentation=Augmentation("flip"))
    found, items = trainer.micro_batch(0)[0], x[trainer.batches.indices(0)]
    as_it_is, mirrored = (data.transform.encode(one) for one in (items, items.flip(-1)))
    apart = [(found - one).flatten(1).abs().amax(1) for one in (as_it_is, mirrored)]
    assert (torch.minimum(*apart) < 1e-6).all()
    assert 20 < (apart[1] < 1e-6).sum() < 44


MODES = {
    "sample": ["--num_samples", 2, "--steps", 2],
    "encode": ["--num_samples", 2, "--rtol", 1e-2, "--atol", 1e-2],
    "interpolate": ["--items", "0,1", "--frames", 3, "--rtol", 1e-2, "--atol", 1e-2],
    "edit": ["--num_samples", 2, "--steps", 2],
    "restore": ["--num_samples", 2, "--steps", 2, "--samples_per_item", 1],
    "evaluate": ["--num_samples", 50, "--steps", 2, "--features", "data", "--metrics", "energy"],
    "compare": ["--num_samples", 40, "--nfe", "2,4", "--samplers", "ddim,heun"],
    "likelihood": ["--num_samples", 4, "--rtol", 1e-2, "--atol", 1e-2],
    "visualize": ["--num_samples", 2, "--steps", 3, "--frames", 3],
    "check": ["--num_samples", 16],
    "pairs": ["--num_samples", 4, "--steps", 2],
    "guidance_sweep": ["--num_samples", 40, "--steps", 2, "--guidance_scale", "1,2"],
}


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_runs_and_stays_in_data_units(latent, capsys, mode, tmp_path):
    status, result, err = call(capsys, "--mode", mode, "--workdir", latent, *MODES[mode])
    assert status == 0, err
    numbers = result.get("numbers")
    if isinstance(numbers, str) and numbers.endswith(".npz"):
        assert np.load(numbers)["x"].shape[-3:] == SHAPE


def test_encoding_says_what_the_autoencoder_leaves(latent, capsys):
    flags = ["--num_samples", 3, "--rtol", 1e-6, "--atol", 1e-6]
    _, result, _ = call(capsys, "--mode", "encode", "--workdir", latent, *flags)
    data = options_of(latent).data()[1]
    held = np.load(result["numbers"])
    assert held["latent"].shape == (3, *INSIDE)
    x = torch.as_tensor(held["x"]).float()
    with torch.no_grad():
        missed = data.transform.decode(data.transform.encode(x + 0.5)) - x - 0.5
    std = data.batch(torch.arange(len(data)))[0].std().item()
    assert result["autoencoder_error"] == pytest.approx(missed.square().mean().sqrt().item() / std, rel=0.02)
    # The flow there and back adds little to it.
    assert result["round_trip_error"] == pytest.approx(result["autoencoder_error"], rel=0.01)


def test_the_bound_is_that_of_the_library(latent, capsys):
    flags = ["--num_samples", 4, "--rtol", 1e-4, "--atol", 1e-4, "--probes", 0, "--latents_per_item", 3]
    _, result, _ = call(capsys, "--mode", "likelihood", "--workdir", latent, *flags)
    run = options_of(latent)
    held_out = run.data()[1]
    x, _ = held_out.batch(spread(len(held_out), 4))
    found = evidence_bound(run.model(), x, draws=3, rtol=1e-4, atol=1e-4)
    bits = -found.nats / (24 * np.log(2))
    assert result["bits_per_dim"] == pytest.approx(bits.mean().item(), rel=1e-5)
    assert result["bound"] == "evidence"
    # A model that knows nothing, whose noise_std is most of it.
    assert 0 < result["bits_per_dim"] < 12


def test_students_and_reflow_begin_in_the_same_latents(latent, tmp_path, capsys):
    student = tmp_path / "student"
    status, _, err = call(capsys, "--mode", "distill", "--teacher", latent, "--method", "meanflow",
                          "--workdir", student, "--config.training.steps=2", "--config.training.batch_size=8",
                          "--config.training.sample_every=2", "--config.data.cache_latents=True")  # fmt: skip
    assert status == 0, err
    own, theirs = load_file(student / "model.safetensors"), load_file(latent / "model.safetensors")
    names = [name for name in own if name.startswith("transform.")]
    assert names
    assert all(torch.equal(own[name], theirs[name]) for name in names)
    status, result, err = call(capsys, "--mode", "sample", "--workdir", student, "--num_samples", 2)
    assert status == 0, err
    assert np.load(result["numbers"])["x"].shape == (2, *SHAPE)
    pairs = ["--mode", "pairs", "--workdir", latent, "--num_samples", 20, "--steps", 2, "--out", tmp_path / "pairs"]
    status, result, err = call(capsys, *pairs)
    assert status == 0, err
    held = np.load(result["numbers"])
    assert held["state"].shape == (20, *INSIDE)
    reflow = ["--mode", "train", "--workdir", tmp_path / "reflow", "--init", latent, "--config.training.steps=2",
              "--config.training.batch_size=8", f"--config.data.pairs={result['numbers']}"]  # fmt: skip
    status, _, err = call(capsys, *reflow)
    assert status == 0, err


def test_a_classifier_of_latents_guides(latent, tmp_path, capsys):
    """Towards what its class looks like in data units: items of the second are brighter by 5 of 16 levels."""
    folder = tmp_path / "guided"
    shutil.copytree(latent, folder)
    options = ["name=mlp", "width=32", "layers=1"]
    status, result, err = call(
        capsys, "--mode", "train_classifier", "--workdir", folder, "--config.classifier.steps=150",
        "--config.classifier.batch_size=32", "--config.classifier.lr=0.01", "--config.classifier.warmup_steps=1",
        *(f"--config.classifier.network.{option}" for option in options),
    )  # fmt: skip
    assert status == 0, err
    assert next(iter(result["accuracy"].values())) > 0.9
    means = {}
    for scale in (0, 8):
        status, result, err = call(capsys, "--mode", "sample", "--workdir", folder, "--num_samples", 64, "--steps", 20,
                                   "--labels", "0,1", "--classifier_scale", scale, "--guidance_scale", 0)  # fmt: skip
        assert status == 0, err
        x = np.load(result["numbers"])["x"]
        means[scale] = x[1::2].mean() - x[::2].mean()
    assert abs(means[0]) < 1
    assert means[8] > 2


def test_what_cannot_be_has_a_sentence(latent, tmp_path, capsys):
    def refused(*arguments):
        status, _, err = call(capsys, *arguments)
        assert status == 2, err
        return err

    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(latent / "x.npz", empty / "x.npz")
    assert "there is no autoencoder.safetensors in" in refused(*command(empty))
    assert "--mode train_autoencoder" in refused(*command(empty))
    keep_autoencoder(empty, autoencoder_of((1, 8, 8), (4, 2)), LEVELS)
    assert "is one of items of shape (1, 8, 8), and these have (1, 4, 6)" in refused(*command(empty))
    keep_autoencoder(empty, autoencoder_of(), {"shift": [0.0], "scale": [1.0], "levels": None})
    assert "is one of items with continuous values, and these have 16 levels" in refused(*command(empty))
    assert "does not exist" in refused(*command(empty, "--config.model.autoencoder=nowhere"))
    assert "latent_scale" in refused(*command(empty, "--config.model.latent_scale=each"))
    plain = command(empty, "--config.model.autoencoder=", "--config.data.cache_latents=True")
    assert "there are no latents to keep" in refused(*plain)
    mirrored = [f"--config.model.autoencoder={latent}", f"--config.data.root={latent / 'x.npz'}",
                "--config.training.augmentation=flip"]  # fmt: skip
    err = refused(*command(tmp_path / "other", *mirrored, "--config.data.cache_latents=True"))
    assert "with config.data.cache_latents=True the latents of an item are computed once" in err
    on = ["--workdir", latent]
    assert "acts on the entries of an item one by one" in refused("--mode", "restore", *on, "--method", "replacement")
    assert "acts on the entries" in refused("--mode", "sample", *on, "--threshold", "static", "--num_samples", 2)
    assert "the evidence bound takes the place" in refused("--mode", "likelihood", *on, "--dequantizations", 2)


def test_a_denoiser_of_any_kind_follows_an_autoencoder(latent, tmp_path, capsys):
    """In its folder, whose config says that of the autoencoder alone."""
    shutil.copy(latent / "x.npz", tmp_path / "x.npz")
    small = {"steps": 2, "batch_size": 8, "network.name": "kl", "network.channels": 4, "network.channel_mult": "(1,)"}
    first = command(
        tmp_path, "--config.model.autoencoder=", *(f"--config.autoencoder.{k}={v}" for k, v in small.items())
    )
    first[1] = "train_autoencoder"
    assert call(capsys, *first)[0] == 0
    network = [argument for argument in command(tmp_path) if "network" not in str(argument)]
    status, _, err = call(capsys, *network, "--config.model.network.name=mlp", "--config.model.network.width=8",
                          "--config.training.steps=1")  # fmt: skip
    assert status == 0, err
    status, _, err = call(capsys, *network, "--config.model.autoencoder=", "--config.training.steps=2")
    assert status == 2
    assert "was trained with another config.model.autoencoder: 'own', now ''" in err


def test_a_common_scale_and_another_folder(latent, tmp_path, capsys):
    folder = tmp_path / "common"
    flags = [f"--config.data.root={latent / 'x.npz'}", f"--config.model.autoencoder={latent}",
             "--config.model.latent_scale=common"]  # fmt: skip
    status, _, err = call(capsys, *command(folder, *flags))
    assert status == 0, err
    scale = load_file(folder / "model.safetensors")["transform.scale"]
    assert len(scale.unique()) == 1
    assert len(load_file(latent / "model.safetensors")["transform.scale"].unique()) == INSIDE[0]


def test_validation_draws_posteriors_as_training_does(latent):
    run = options_of(latent)
    data, _ = run.data()
    draws = BatchNoise.draw(run.model().sde, (5, *INSIDE), torch.Generator().manual_seed(0))
    x = data.transform.dequantize(data.batch(torch.arange(5))[0], 0.5)
    mean, std = data.transform.posterior(x)
    n = (draws.encode(x, data.transform) - mean) / std
    torch.testing.assert_close(n, draws.of_posterior(data.transform), rtol=1e-4, atol=1e-4)
    assert not torch.equal(n[0], n[1])
    assert resolve(read_config(config_path("arrays")), []).model.autoencoder == ""


def test_the_items_that_a_check_compares_with_are_draws(latent):
    run = options_of(latent)
    data, model, cpu = run.data()[0], run.model(), torch.device("cpu")
    # Posteriors that are wide beside the spread of their means.
    data.transform.autoencoder.std.fill_(20.0)
    items = encoded_items(data, 100, model, cpu)[0]
    x = data.transform.dequantize(data.batch(spread(len(data), 100))[0], 0.5)
    mean, std = data.transform.posterior(x)
    assert ((items - mean) / std).square().mean().item() == pytest.approx(1, abs=0.15)
    known = linear_filter(model, DenoisingErrors(data, model, "uniform", cpu, items=8), data)
    total = mean.var(0).sum() + std[0].square().sum()
    assert known.values.sum().item() == pytest.approx(total.item(), rel=0.15)


def test_a_model_in_latents_as_programs(latent, tmp_path, capsys):
    status, _, err = call(capsys, "--mode", "export", "--workdir", latent, "--out", tmp_path / "out")
    assert status == 0, err
    programs = {name: torch.export.load(tmp_path / f"out/{name}.pt2").module() for name in ("model", "decoder")}
    model = options_of(latent).model()
    z, t, labels = torch.randn(5, *INSIDE), torch.linspace(0.1, 1, 5), torch.tensor([0, 1, -1, 0, 1])
    with torch.no_grad():
        told = programs["model"](z, t, {"labels": labels})
        torch.testing.assert_close(told, model(z, t, labels))
        torch.testing.assert_close(programs["decoder"](z), model.transform.decode(z))


ON_DEVICES = {mode: MODES[mode] for mode in ("sample", "restore", "likelihood")}


@pytest.mark.skipif(not sim.available, reason="this torch has no interface for devices written in Python")
@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("mode", [*ON_DEVICES, "train"])
def test_a_simulated_device_says_the_same(latent, tmp_path, capsys, mode):
    found = []
    for device in ("cpu", sim.NAME):
        folder = tmp_path / device
        shutil.copytree(latent, folder)
        flags = ON_DEVICES.get(mode, ["--config.training.steps=5", "--config.data.cache_latents=True"])
        with sim.without_float64():
            status, last, err = call(capsys, "--mode", mode, "--workdir", folder, "--device", device, *flags)
        assert status == 0, err
        found.append({name: value for name, value in last.items() if isinstance(value, float) and "second" not in name})
    here, there = found
    assert here.keys() == there.keys()
    for name, value in here.items():
        assert there[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
