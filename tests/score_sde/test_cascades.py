"""Cascades from the command line: their exact law, noise on conditions, several stages, a prior, and mistakes."""

import json

import numpy as np
import pytest
import torch

from samplers import generate
from samplers.heun import Heun
from score_sde.config.config import config_path, read_config, read_run_config, resolve
from score_sde.run.cascade import cascade_seed
from score_sde.run.folder import Run
from score_sde.training.spec import denoiser_spec
from sde.checkpoint.models import load_model, save_model
from sde.checkpoint.spec import build_denoiser
from sde.guidance import Conditional
from sde.training.batches import Batches
from sde.training.options import TrainingOptions
from tests.oracles import simulated_device as sim
from tests.oracles.linear_stage import means_over_two
from tests.score_sde.runs import call, untrained

pytestmark = [pytest.mark.xdist_group("cascades"), pytest.mark.usefixtures("unrendered")]

CPU = torch.device("cpu")
MEAN = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
FACTOR = torch.tensor([[2.0, 0, 0, 0], [1.5, 1, 0, 0], [0.5, -1, 1, 0], [-1, 0.5, 0.3, 0.7]], dtype=torch.float64)
COV = FACTOR @ FACTOR.T
FINE, COARSE = means_over_two(4), means_over_two(2)
HEUN = ["--sampler", "heun", "--steps", 20]


def exact_run(folder, data, mean, cov, *overrides):
    """A run whose denoiser is exact for N(mean, cov), whatever the finite data say."""
    folder.mkdir()
    network = "--config.model.network.name=tests.oracles.linear_stage:LinearStage"
    own = [f"--config.data.root={data}", "--config.sde.name=ve", network, *overrides]
    run = Run(folder, resolve(read_config(config_path("points")), own), CPU)
    spec = denoiser_spec(run.config, run.data()[0])
    model = build_denoiser(spec)
    model.network.told(mean, cov, model)
    run.write_config()
    save_model(run.model_file, "denoiser", spec, model.state_dict())
    return run


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Signals of 1, 2 and 4 numbers, each but the first from the means over two of its own, with noise."""
    root = tmp_path_factory.mktemp("stages")
    z = torch.randn(600, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.savez(root / "data.npz", x=(MEAN + z @ FACTOR.T)[:, None].numpy())
    noised = ["--config.data.conditions=('superres',)", "--config.data.condition_noise=(0.1, 1)"]
    low, middle = ((a @ MEAN, a @ COV @ a.T) for a in (COARSE @ FINE, FINE))
    return {
        "low": exact_run(root / "low", root / "data.npz", *low, "--config.data.downsample=4"),
        "middle": exact_run(root / "middle", root / "data.npz", *middle, "--config.data.downsample=2", *noised),
        "high": exact_run(root / "high", root / "data.npz", MEAN, COV, *noised),
    }


def sampled(capsys, run, out, *flags, count=4):
    status, _, err = call(capsys, "--mode", "sample", "--workdir", run.folder, "--num_samples", count, "--out", out,
                          *flags)  # fmt: skip
    assert status == 0, err
    with np.load(f"{out}.npz") as arrays:
        return dict(arrays)


def assert_law(found, mean, cov):
    """Mean and covariance of rows within five standard errors, after whitening: those of any direction."""
    z = torch.linalg.solve_triangular(torch.linalg.cholesky(cov), (found - mean).T, upper=False)
    count = z.shape[1]
    assert z.mean(1).abs().max() < 5 / count**0.5
    assert (z.cov() - torch.eye(len(z), dtype=z.dtype)).abs().max() < 5 * (2 / count) ** 0.5


def flat(x):
    return torch.from_numpy(x).double().flatten(1)


def image_scale(run):
    return run.model().standardization.image_scale.double().item()


def test_exact_stages_have_the_law_of_the_data(capsys, stages, tmp_path):
    """Jointly with the noised image that each was drawn from; of three stages, at a level of each."""
    flags = ["--cascade", f"{stages['low'].folder},{stages['middle'].folder}", "--condition_noise", "0.4,0.7", *HEUN]
    found = sampled(capsys, stages["high"], tmp_path / "c", *flags, count=4000)
    assert (found["condition_noise"] == np.float32(0.7)).all()
    noise = (0.7 * image_scale(stages["high"])) ** 2 * torch.eye(2, dtype=torch.float64)
    both = torch.cat([torch.eye(4, dtype=torch.float64), FINE])
    cov = both @ COV @ both.T
    cov[4:, 4:] += noise
    assert_law(torch.cat([flat(found["x"]), flat(found["image"])], 1), both @ MEAN, cov)


def test_noise_on_an_image_of_ones_own(capsys, stages, tmp_path):
    """Samples given y0 with noise: mean m + K (y0 - B m), and the covariance K N K^T beside the posterior's; at the
    lowest level by default."""
    y0 = FINE @ MEAN + torch.tensor([1.0, -1.5], dtype=torch.float64)
    np.savez(tmp_path / "y.npz", image=y0.view(1, 1, 2).numpy())
    for flags, level in (([], 0.1), (["--condition_noise", 0.8], 0.8)):
        flags = ["--condition", tmp_path / "y.npz", *flags, *HEUN]
        found = sampled(capsys, stages["high"], tmp_path / "c", *flags, count=3000)
        noise = (level * image_scale(stages["high"])) ** 2 * torch.eye(2, dtype=torch.float64)
        gain = torch.linalg.solve(FINE @ COV @ FINE.T + noise, FINE @ COV).T
        cov = COV - gain @ FINE @ COV + gain @ noise @ gain.T
        assert_law(flat(found["x"]), MEAN + gain @ (y0 - FINE @ MEAN), cov)
        assert_law(flat(found["image"]), y0, noise)
    again = tmp_path / "again.npz"
    np.savez(again, image=found["image"][:5], condition_noise=found["condition_noise"][:5])
    alike = sampled(capsys, stages["high"], tmp_path / "d", "--condition", again, *HEUN, count=5)
    np.testing.assert_array_equal(alike["image"], found["image"][:5])
    np.testing.assert_allclose(alike["x"], found["x"][:5], rtol=1e-4, atol=1e-5)


def test_training_tells_the_level_of_the_noise_that_it_adds(stages):
    """Errors of the exact denoiser on training batches: those of the posterior at each item's own level."""
    run = stages["high"]
    model, (train, _) = run.model(), run.data()
    batches = Batches(train, model.sde, TrainingOptions(batch_size=500, steps=8), run.world, CPU)
    ratios, levels = [], []
    for number in range(8):
        x0, cond, draws = batches.get(number)
        x = model.sde.perturb(x0, draws.t, draws.noise(x0))
        error = (model(x, draws.t, cond) - x0).double().flatten(1).square().sum(1)
        _, cov = model.network.given(model.standardization(cond), len(x0))
        noise = model.network.units[1] * model.sde.noise_level(draws.t)
        precision = torch.eye(4, dtype=torch.float64) / noise.square()[:, None, None]
        cov = torch.linalg.inv(torch.linalg.inv(cov) + precision)
        ratios.append(error * model.network.units[1] ** 2 / cov.diagonal(dim1=1, dim2=2).sum(1))
        levels.append(cond["condition_noise"].double().flatten())
        # Uniform with mean 0 and variance 1, from -sqrt(3) to sqrt(3), is what the network sees.
        seen = model.standardization(cond)["condition_noise"]
        assert 1.7 < seen.abs().max() < 3**0.5 + 1e-5
    ratio, level = torch.cat(ratios), torch.cat(levels)
    # The items are 540 draws of the law.
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / 540**0.5
    found = (level.sort().values - 0.1) / 0.9
    assert (found - torch.linspace(0, 1, len(found))).abs().max() < 2 / len(found) ** 0.5
    far = level > 0.7
    assert abs(ratio[far].mean() - ratio[~far].mean()) < 5 * ratio.std() / 200**0.5


def test_noise_is_an_items_own(stages):
    train, test = stages["high"].data()
    index, seeds = torch.arange(20), torch.arange(100, 120)
    _, whole = train.batch(index, seeds)
    _, part = train.batch(index[7:], seeds[7:])
    for kind in ("image", "condition_noise"):
        assert torch.equal(whole[kind][7:], part[kind])
    _, lowest = test.batch(index)
    assert (lowest["condition_noise"] == np.float32(0.1)).all()
    clean, scale = train.conditions["image"](train.batch(index)[0]), image_scale(stages["high"])
    n = (whole["image"] - clean) / (scale * whole["condition_noise"][:, None])
    assert 0.6 < n.std() < 1.4


def test_a_sample_does_not_depend_on_its_batch(capsys, stages, tmp_path):
    flags = ["--cascade", f"{stages['low'].folder},{stages['middle'].folder}", "--condition_noise", 0.5, "--steps", 4]
    whole = sampled(capsys, stages["high"], tmp_path / "a", *flags, count=7)
    parts = sampled(capsys, stages["high"], tmp_path / "b", *flags, "--batch_size", 2, count=5)
    for name in ("x", "image", "condition_noise"):
        np.testing.assert_allclose(parts[name], whole[name][:5], rtol=1e-5, atol=1e-6)
    other = sampled(capsys, stages["high"], tmp_path / "b", *flags, "--seed", 1, count=5)
    assert (other["image"] != whole["image"][:5]).all()
    # Each stage by a seed of its own.
    seeds = {"middle": cascade_seed(0), "low": cascade_seed(cascade_seed(0))}
    low = sampled(capsys, stages["low"], tmp_path / "b", "--steps", 4, "--seed", seeds["low"], count=7)
    np.savez(tmp_path / "low.npz", image=low["x"])
    own = ["--condition", tmp_path / "low.npz", "--steps", 4, "--condition_noise", 0.5]
    middle = sampled(capsys, stages["middle"], tmp_path / "b", *own, "--seed", seeds["middle"], count=7)
    np.savez(tmp_path / "middle.npz", image=middle["x"])
    own[1] = tmp_path / "middle.npz"
    last = sampled(capsys, stages["high"], tmp_path / "b", *own, count=7)
    np.testing.assert_allclose(last["x"], whole["x"], rtol=1e-5, atol=1e-5)


WORDS = ["red heart", "blue car", "leaf"]


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """Vectors of three numbers from texts, and points from vectors and texts, on random weights."""
    root = tmp_path_factory.mktemp("prior")
    rng, captions = np.random.default_rng(0), np.array([WORDS[i % 3] for i in range(60)])
    vectors, x = rng.normal(size=(60, 3)) * [1, 30, 0.1], rng.normal(size=(60, 2))
    np.savez(root / "vectors.npz", x=vectors, captions=captions)
    np.savez(root / "points.npz", x=x, vector=vectors, captions=captions)

    def made(name, data, items, conditions, *more):
        own = [f"--config.data.root={root / data}", f"--config.data.conditions={conditions}", *more]
        return untrained(root / name, items, None, *own)

    sequence, noised = "--config.model.text.outputs=sequence", "--config.data.condition_noise=(0, 0.5)"
    return {
        "prior": made("prior", "vectors.npz", vectors, "('text',)"),
        "decoder": made("decoder", "points.npz", x, "('vector',)"),
        "told": made("told", "points.npz", x, "('vector','text')", sequence, noised),
    }


def test_a_prior_hands_on_vectors(capsys, prior, tmp_path):
    flags = ["--cascade", prior["prior"].folder, "--prompt", "leaf", "--steps", 3]
    found = sampled(capsys, prior["decoder"], tmp_path / "a", *flags)
    own = ["--prompt", "leaf", "--steps", 3, "--seed", cascade_seed(0)]
    drawn = sampled(capsys, prior["prior"], tmp_path / "b", *own)
    np.testing.assert_array_equal(found["vector"], drawn["x"])
    assert found["prompts"].tolist() == ["leaf"] * 4
    np.savez(tmp_path / "v.npz", vector=drawn["x"])
    second = sampled(capsys, prior["decoder"], tmp_path / "b", "--condition", tmp_path / "v.npz", "--steps", 3)
    np.testing.assert_array_equal(second["x"], found["x"])
    guided = sampled(capsys, prior["decoder"], tmp_path / "b", *flags, "--cascade_scale", 3)
    strong = sampled(capsys, prior["prior"], tmp_path / "c", *own, "--guidance_scale", 3)
    np.testing.assert_array_equal(guided["vector"], strong["x"])


def test_texts_go_to_every_stage(capsys, prior, tmp_path):
    flags = ["--cascade", prior["prior"].folder, "--steps", 3, "--condition_noise", 0.3]
    found = sampled(capsys, prior["told"], tmp_path / "a", *flags)
    assert "sequence" not in found
    asked = tmp_path / "asked.txt"
    asked.write_text("\n".join(found["prompts"].tolist()))
    again = sampled(capsys, prior["told"], tmp_path / "b", *flags, "--prompt", asked)
    for name in ("x", "vector", "condition_noise"):
        np.testing.assert_array_equal(again[name], found[name])
    assert (again["condition_noise"] == np.float32(0.3)).all()
    clean = sampled(capsys, prior["told"], tmp_path / "c", *flags[:-2], "--prompt", asked)
    # Noise is in units of each feature's own spread.
    scale = prior["told"].model().standardization.vector_scale.numpy()
    assert ((found["vector"] - clean["vector"]) / scale).std(0).min() > 0.1
    assert ((found["vector"] - clean["vector"]) / scale).std(0).max() < 1
    model = prior["told"].model()
    leaves = sampled(capsys, prior["told"], tmp_path / "d", *flags[:-2], "--prompt", "leaf")
    told = {"vector": torch.from_numpy(leaves["vector"]), "condition_noise": torch.zeros(4, 1)}
    cond = told | model.text(["leaf"] * 4)
    expected = generate(Conditional(model, cond), Heun(), 4, (2,), steps=3, seed=0)
    np.testing.assert_allclose(leaves["x"], expected.x, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not sim.available, reason="this torch has no interface for devices written in Python")
def test_a_device_draws_and_trains_as_the_cpu_does(capsys, prior, tmp_path):
    flags = ["--cascade", prior["prior"].folder, "--prompt", "leaf", "--condition_noise", 0.3, "--steps", 2]
    here = sampled(capsys, prior["told"], tmp_path / "a", *flags)
    with sim.without_float64():
        there = sampled(capsys, prior["told"], tmp_path / "b", *flags, "--device", sim.NAME)
    for name in ("x", "vector", "condition_noise"):
        np.testing.assert_allclose(there[name], here[name], rtol=1e-3, atol=1e-3)
    found = {}
    for device in ("cpu", sim.NAME):
        steps = ["--config.training.steps=2", "--config.training.batch_size=8", "--config.training.sample_every=9",
                 "--config.training.ema_decay=0.1"]  # fmt: skip
        data = prior["told"].folder.parent / "points.npz"
        status, _, err = call(capsys, "--mode", "train", "--config", "points", "--workdir", tmp_path / device,
                              f"--config.data.root={data}", "--config.data.conditions=('vector',)",
                              "--config.data.condition_noise=(0.1, 0.5)", "--config.model.network.width=8", *steps,
                              "--device", device)  # fmt: skip
        assert status == 0, err
        found[device] = load_model(tmp_path / device / "model.safetensors").state_dict()
    for name, value in found["cpu"].items():
        torch.testing.assert_close(found[sim.NAME][name], value, rtol=1e-3, atol=1e-4)


def test_mistakes(capsys, stages, prior, tmp_path):
    low, middle, high = (stages[name].folder for name in ("low", "middle", "high"))

    def failed(sentence, run, *flags):
        status, _, err = call(capsys, "--mode", "sample", "--workdir", run.folder, "--num_samples", 2, *flags)
        assert status == 2, err
        assert sentence in err
        assert err.count("\n") == 1

    failed("is itself conditioned on image: name the run that draws it in front, --cascade=FIRST,", stages["high"],
           "--cascade", middle)  # fmt: skip
    failed("draws items of shape (1, 1), but", stages["high"], "--cascade", low)
    failed("draws items of shape (1, 4), but", stages["high"], "--cascade", f"{low},{high}")
    failed("not on an image or a vector", stages["low"], "--cascade", middle)
    failed("needs a level, or 2, one for each stage that takes noise", stages["high"], "--cascade", f"{low},{middle}",
           "--condition_noise", "1,1,1")  # fmt: skip
    failed("knows levels from 0.1 to 1", stages["high"], "--cascade", f"{low},{middle}", "--condition_noise", "2")
    failed("needs a level", stages["high"], "--condition_noise", "much")
    failed("was trained without noise on its condition", stages["low"], "--condition_noise", "0.1")
    failed("--cascade, which is not given", stages["high"], "--cascade_scale", "2")
    failed("needs a scale, or 2, one for each", stages["high"], "--cascade", f"{low},{middle}",
           "--cascade_scale", "1,2,3")  # fmt: skip
    failed("the model is unconditional, so there is nothing to guide", stages["high"], "--cascade", f"{low},{middle}",
           "--cascade_scale", "2")  # fmt: skip
    failed("--prompt='leaf': the model is conditioned on image", stages["high"], "--cascade", f"{low},{middle}",
           "--prompt", "leaf")  # fmt: skip
    failed("is not a run folder: name one that draws vectors of shape (3,)", prior["decoder"], "--cascade", tmp_path)
    file = tmp_path / "c.npz"
    np.savez(file, image=np.zeros((2, 1, 2)), condition_noise=np.full((2, 1), 0.5))
    failed("has noise of level 0.5 already", stages["high"], "--condition", file, "--condition_noise", "0.2")


@pytest.mark.parametrize(("overrides", "sentence"), [
    (["('superres',)", "(0.5,)"], "needs the lowest and the highest level, as (0, 0.5), or () for none"),
    (["('superres',)", "(0.5, 0.5)"], "needs the lowest and the highest level"),
    (["('superres',)", "(-1, 0.5)"], "needs the lowest and the highest level"),
    (["()", "(0, 0.5)"], "the data have no condition image or vector for it"),
    (["('condition_noise',)", "()"], "'condition_noise' is not one of"),
])  # fmt: skip
def test_levels_that_no_data_have(capsys, stages, tmp_path, overrides, sentence):
    data = stages["low"].folder.parent / "data.npz"
    status, _, err = call(capsys, "--mode", "train", "--config", "arrays", "--workdir", tmp_path / "run",
                          f"--config.data.root={data}", f"--config.data.conditions={overrides[0]}",
                          f"--config.data.condition_noise={overrides[1]}")  # fmt: skip
    assert status == 2, err
    assert sentence in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("first", "second"), [("emoji_small", "emoji_superres"), ("digits_small", "digits_superres")])
def test_configs_of_a_cascade_fit(first, second):
    """What the first draws is what the second is conditioned on."""
    low, high = (resolve(read_config(config_path(name)), []).data for name in (first, second))
    assert low.downsample == high.superres_factor
    assert low.event_shape[1:] == tuple(size // low.downsample for size in high.event_shape[1:])
    assert low.arguments().get("root") == high.arguments().get("root")


def test_runs_without_noise_are_described_as_before(stages, prior):
    config = json.loads((prior["decoder"].folder / "config.json").read_text())
    assert config["data"]["condition_noise"] == []
    del config["data"]["condition_noise"]
    (prior["decoder"].folder / "config.json").write_text(json.dumps(config))
    assert resolve(read_run_config(prior["decoder"].folder), []).data.condition_noise == ()
    assert "condition_noise" not in prior["decoder"].model().conditions
