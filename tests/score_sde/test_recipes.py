"""Recipes: training as published, and a small run of it."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from score_sde.cli import main
from score_sde.config.config import config_path, read_config, resolve
from score_sde.evaluation import validation
from score_sde.modes import train
from sde.checkpoint.spec import build_sde
from sde.checkpoint.states import read_state
from sde.data import Dataset
from sde.data.transform import Transform
from sde.pretrained.foreign import empty_network, pixels
from sde.training.ema import EMA
from sde.training.loss import denoising_loss
from tests.oracles.foreign import key_list, key_lists
from tests.score_sde.runs import call

PAGE = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"

# Karras et al. 2022, table 7, the column CIFAR-10, ours; and table 1, EDM: loss, preconditioning and p(sigma).
TABLE = {
    "duration": 200e6,
    "minibatch size": 512,
    "learning rate": 10e-4,
    "learning rate ramp-up": 10e6,
    "EMA half-life": 0.5e6,
    "EMA ramp-up ratio": 0.05,
    "dropout": 0.13,
    "channel multiplier": 128,
    "channels per resolution": (2, 2, 2),
    "augment probability": 0.12,
}


@pytest.fixture(scope="module")
def recipe():
    return resolve(read_config(config_path("cifar10_edm")), [])


def test_it_equals_the_published_table(recipe):
    training, network = recipe.training, recipe.model.network
    images = training.batch_size
    half_life = math.log(0.5) / math.log(training.ema_decay) * images
    found = {
        "duration": training.steps * images,
        "minibatch size": images,
        "learning rate": training.lr,
        "learning rate ramp-up": training.warmup_steps * images,
        "EMA half-life": half_life,
        "EMA ramp-up ratio": training.ema_rampup_ratio,
        "dropout": network["dropout"],
        "channel multiplier": network["channels"],
        "channels per resolution": network["channel_mult"],
        "augment probability": training.augmentation_probability,
    }
    for row, value in TABLE.items():
        # Of the ramp-up a quarter of a step is left over.
        assert found.pop(row) == pytest.approx(value, rel=2e-5 if row == "learning rate ramp-up" else 1e-9), row
    assert (training.augmentation, training.max_grad_norm, training.precision) == ("edm", 0.0, "float32")
    assert (training.optimizer, training.adam_betas, training.weight_decay) == ("adam", (0.9, 0.999), 0.0)
    # Their gradients are those of the sum over an image: with eps so many times smaller, the steps are the same.
    assert training.adam_eps * 3 * 32 * 32 == pytest.approx(1e-8)
    assert (training.lr_decay, training.cond_dropout) == ("none", 0.0)
    assert (training.time_distribution, training.loss_weighting) == ("log_normal", "edm")
    assert (recipe.model.parametrization, recipe.model.sigma_data) == ("edm", 0.5)
    sde = build_sde(dict(recipe.sde))
    assert (sde.sigma_min, sde.sigma_max) == (0.002, 80.0)


def test_the_schedules_of_the_recipe(recipe):
    """In images seen, from EDM's own formulas; the learning rate is a step ahead."""
    options, batch = recipe.training.optimization, 512
    for seen in (0, 512 * 777, 5_000_192, 9_999_872, 10_000_384, 150_000_128):
        theirs = TABLE["learning rate"] * min((seen + batch) / TABLE["learning rate ramp-up"], 1)
        assert options.lr_at(seen) == pytest.approx(theirs, rel=2e-5)
    average = EMA(torch.nn.Linear(1, 1), options.ema_decay, options.ema_rampup_ratio)
    for seen in (512, 512 * 777, 9_999_872, 10_000_384, 150_000_128):
        average.updates = seen // batch + 1
        theirs = 0.5 ** (batch / min(TABLE["EMA half-life"], TABLE["EMA ramp-up ratio"] * seen))
        assert 1 - average.weight() == pytest.approx(theirs, rel=1e-9)


VARIANTS = {
    "edm--cifar10-32x32-cond-vp": [],
    "edm--cifar10-32x32-uncond-vp": ["--config.model.conditional=False"],
    "edm--cifar10-32x32-uncond-ve": [
        "--config.model.conditional=False",
        "--config.model.network.embedding_type=fourier",
        "--config.model.network.features_mult=2",
        "--config.model.network.fir_kernel=(1.0,3.0,3.0,1.0)",
        "--config.model.network.progressive_input=residual",
    ],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_its_networks_are_the_published_ones(name):
    """By number of parameters, all that the options that say no size change, and the options on the page."""
    if name not in key_lists("edm"):
        pytest.skip("the lists of published tensors are no part of this project")
    published = key_list(name)
    config = resolve(read_config(config_path("cifar10_edm")), VARIANTS[name])
    network = config.model.network.to_dict()
    built = empty_network(network, (3, 32, 32), 10 if config.model.conditional else None)
    assert sum(p.numel() for p in built.parameters()) == published["n_params"]
    theirs = published["config"]
    assert network["embedding_type"] == theirs["embedding_type"]
    assert network["features_mult"] == theirs["channel_mult_noise"]
    assert list(network["fir_kernel"]) == theirs["resample_filter"]
    assert network["progressive_input"] == {"standard": "none", "residual": "residual"}[theirs["encoder_type"]]
    assert network["progressive_output"] == {"standard": "none"}[theirs["decoder_type"]]
    assert (network["augment_dim"], network["dropout"]) == (theirs["augment_dim"], theirs["dropout"])
    assert bool(theirs["label_dim"]) == config.model.conditional


@pytest.mark.parametrize("name", [name for name, options in VARIANTS.items() if options])
def test_the_page_has_the_options_of_the_other_networks(name):
    page = PAGE.read_text().replace("'", "")
    for option in VARIANTS[name]:
        assert option in page


def test_every_key_of_the_page_has_the_value_that_it_says(recipe):
    """Rows "| ... | `config.key` = value | ... |"."""
    values, seen = recipe.to_dict(), 0
    for key, value in re.findall(r"`config\.([\w.]+)` = `([^`]+)`", PAGE.read_text()):
        found = values
        for part in key.split("."):
            found = found[part]
        text = f"{found:.10g}" if isinstance(found, float) else str(found)
        assert value in (text, repr(found)), key
        seen += 1
    assert seen > 20


def test_values_are_put_where_edm_puts_them():
    """k / 127.5 - 1, and back to the nearest integer."""
    k = torch.arange(256.0)[:, None]
    for transform in (Transform.of_values(256), pixels()):
        seen = transform.encode(transform.dequantize(k, 0.5))
        torch.testing.assert_close(seen, k / 127.5 - 1, rtol=0, atol=1e-6)
        for shift in (-0.49, 0.0, 0.49):
            assert torch.equal(transform.quantize(transform.decode((k + shift) / 127.5 - 1)), k)
    # Noise in cells of width 2 / 255 has a variance of its own.
    square, items = (k.double() / 127.5 - 1).square().mean().item(), k.to(torch.uint8)
    for dequantized, own in ((False, 0.0), (True, (2 / 255) ** 2 / 12)):
        data = Dataset(items, None, None, Transform.of_values(256), dequantized=dequantized)
        assert data.sigma_data**2 == pytest.approx(square + own, rel=1e-9)


SMALL = [
    "--config.model.network.channels=8", "--config.model.network.channel_mult=(1,1)",
    "--config.model.network.num_res_blocks=1", "--config.model.network.attention_resolutions=(4,)",
    "--config.training.batch_size=8", "--config.training.warmup_steps=1", "--config.training.log_every=1",
    "--config.training.sample_every=4", "--config.training.checkpoint_every=2", "--config.data.event_shape=()",
    "--config.training.augmentation_probability=0.6",
]  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Previews of few samples, which are not rendered."""
    monkeypatch.setattr(train, "PREVIEW_SAMPLES", 4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folders of colored pictures of two classes, to train and to hold out."""
    folder, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 4)):
        for number in range(count):
            place = folder / part / ("cat", "dog")[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{number}.png")
    return [f"--config.data.root={folder / 'train'}", f"--config.data.test_root={folder / 'test'}"]


def seen_in_training(monkeypatch, tmp_path, *options):
    """Items, conditions and seeds that the loss has, of training and of held-out items, in two steps."""
    seen = {train: [], validation: []}
    for module, found in seen.items():

        def watched(model, x0, cond, draws, *, found=found, **own):
            found.append((x0.clone(), cond, draws.seeds))
            return denoising_loss(model, x0, cond, draws, **own)

        monkeypatch.setattr(module, "denoising_loss", watched)
    arguments = ["--mode", "train", "--config", "cifar10_edm", *SMALL, *options, "--config.training.steps=2"]
    assert main.main([*arguments, "--workdir", str(tmp_path / "-".join(options[-1:]).replace("/", ""))]) == 0
    return seen[train][-2:], seen[validation]


def test_what_the_loss_has(pictures, monkeypatch, tmp_path):
    """Flipped items with what is told of it beside their classes; the values of the images; held-out items as they
    are."""
    own = [*pictures, "--config.training.augmentation_probability=0.0"]
    plain, _ = seen_in_training(monkeypatch, tmp_path, *own, "--config.training.augmentation=none")
    told, held_out = seen_in_training(monkeypatch, tmp_path, *own, "--config.training.augmentation=edm")
    for (x, cond, seeds), (y, other, same) in zip(plain, told, strict=True):
        assert torch.equal(seeds, same)
        mirrored = other["augmentation"][:, 0] > 0
        assert 0 < mirrored.sum() < 8
        assert not other["augmentation"][:, 1:].any()
        assert not cond["augmentation"].any()
        assert torch.equal(y, torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-1), x))
        assert torch.equal(cond["labels"], other["labels"])
        assert {0, 1} == {*cond["labels"].tolist()}
    assert len(held_out) >= 2
    assert all({*cond} == {"labels"} for _, cond, _ in held_out)
    for x, _, _ in [*plain, *held_out]:
        values = x * 127.5 + 127.5
        torch.testing.assert_close(values, values.round(), rtol=0, atol=1e-4)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def test_a_small_run_of_it_goes_on_bit_for_bit(pictures, tmp_path, capsys):
    """With augmentation, uncertainty weighting, conditions that are dropped, and micro-batches."""
    own = [*pictures, *SMALL, "--config.training.uncertainty_weighting=True", "--config.training.cond_dropout=0.3",
           "--config.training.gradient_accumulation=2"]  # fmt: skip
    command = ["--mode", "train", "--config", "cifar10_edm", *own]
    for steps, folder in ((4, "straight"), (2, "stopped"), (4, "stopped")):
        status, _, error = call(capsys, *command, f"--config.training.steps={steps}", "--workdir", tmp_path / folder)
        assert status == 0, error
    one, two = (tmp_path / folder for folder in ("straight", "stopped"))
    weights = [load_file(folder / "model.safetensors") for folder in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not any("uncertainty" in name for name in weights[0])
    # What the network is told has been learned from: the optimizer knows gradients of its weights.
    state = read_state(one / "checkpoints" / "denoiser-00000004.pt")
    number = [*state["ema"]["average"]].index("network.embedding.mapping.augment.weight")
    assert state["optimizer"]["state"][number]["exp_avg"].abs().amax(0).gt(0).sum() > 6
    losses = [[line["loss"] for line in lines_of(folder) if "loss" in line] for folder in (one, two)]
    assert losses[0] == losses[1]
    assert all("objective" in line for line in lines_of(one) if "loss" in line)
    status, _, error = call(capsys, "--mode", "sample", "--workdir", one, "--num_samples", 2, "--steps", 2,
                            "--out", tmp_path / "drawn")  # fmt: skip
    assert status == 0, error
    values = np.load(tmp_path / "drawn.npz")["x"]
    assert values.dtype.kind in "ui" or np.array_equal(values, values.round())
    status, _, error = call(capsys, *command, "--config.training.steps=6", "--workdir", one,
                            "--config.training.uncertainty_weighting=False")  # fmt: skip
    assert status == 2
    assert "config.training.uncertainty_weighting is True there, and False here" in error


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--config.model.network.augment_dim=0"],
         "config.training.augmentation = 'edm' tells the network 9 numbers, and the network has no "
         "config.model.network.augment_dim: set that to 9"),
        (["--config.model.network.augment_dim=6"], "the network has config.model.network.augment_dim = 6"),
        (["--config.model.network.name=unet"], "the network has no config.model.network.augment_dim"),
        (["--config.training.augmentation=flop"], "needs one of none, flip, crop, edm (did you mean flip?)"),
        (["--config.training.augmentation_probability=1.5"], "augmentation_probability = 1.5: needs a probability"),
        (["--config.training.adam_betas=(0.9,1.0)"], "config.training.adam_betas = (0.9, 1.0): needs two decays"),
        (["--config.data.conditions=('superres',)"], "the image of the condition would not be transformed"),
        (["--config.data.downsample=2"], "config.data.dequantized = False: the data are continuous"),
    ],
)  # fmt: skip
def test_bad_input(pictures, tmp_path, capsys, options, sentence):
    small = SMALL if "name=unet" not in options[0] else [option for option in SMALL if "network" not in option]
    arguments = ["--mode", "train", "--config", "cifar10_edm", *pictures, *small, *options]
    status, _, error = call(capsys, *arguments, "--workdir", tmp_path / "run")
    assert status == 2
    assert sentence in error
    assert not (tmp_path / "run").exists()
