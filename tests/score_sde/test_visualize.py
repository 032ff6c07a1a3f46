"""--mode visualize: what is plotted is what the library computes, and files open with the frames that are stated."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samplers import GRIDS, SAMPLERS, SeededNoise, generate
from samplers.grid import make_grid
from samplers.noise.seeded import sample_seeds
from score_sde.cli import main
from score_sde.kinds import kind_of
from score_sde.modes.visualize import PLANE_POINTS, visualize
from score_sde.plots.field import Begun, axes_of, fields, panel_times
from score_sde.plots.film import Reel, animation, as_spread, chosen, strip
from score_sde.plots.process_plot import process_arrays
from score_sde.run.folder import Run
from sde import VESDE, VPSDE, Transform
from sde.checkpoint.models import load_model
from sde.data.statistics import spread
from sde.guidance.classifier_free import ClassifierFree
from sde.guidance.conditional import Conditional
from tests.oracles.exact import GaussianMixture
from tests.score_sde.runs import CONFIGS, call, run_of

pytestmark = pytest.mark.rendered

CPU = torch.device("cpu")
MEANS = torch.tensor([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.0]])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return {name: run_of(name, tmp_path_factory.mktemp(name)) for name in CONFIGS}


def arrays_of(result, what):
    (path,) = [path for path in result["numbers"] if path.endswith(f"-{what}.npz")]
    return {name: torch.from_numpy(value) for name, value in np.load(path).items() if name != "settings"}


def opened(result):
    sizes = {}
    for path in result["pictures"]:
        with Image.open(path) as image:
            image.load()
            sizes[Path(path).name.split("-", 2)[-1]] = image.size
    return sizes


def test_process_arrays_are_the_process(process):
    arrays = process_arrays(process, 12)
    t = arrays["t"]
    assert (t[0], t[-1]) == (process.t_min, process.t_max)
    for name in ("alpha", "sigma", "log_snr", "f", "g2"):
        assert torch.equal(arrays[name], getattr(process, name)(t))
    assert {name for name in arrays if name.startswith("grid_")} == {f"grid_{name}" for name in GRIDS}
    for name in GRIDS:
        assert torch.equal(arrays[f"grid_{name}"], make_grid(process, name, 12))


def test_the_process_needs_no_trained_model(runs, tmp_path):
    run = Run(tmp_path, runs["points"].config, CPU)
    result = visualize(run, plots="process", steps=7)
    arrays = arrays_of(result, "process")
    assert torch.equal(arrays["log_snr"], VPSDE().log_snr(arrays["t"]))
    assert len(arrays["grid_karras"]) == 8
    assert min(opened(result)["process.png"]) > 300
    assert result["pictures"] == [str(tmp_path / "samples" / "000001-visualize-process.png")]


@pytest.fixture
def coarse(monkeypatch):
    """Panels of few points."""
    monkeypatch.setattr("score_sde.modes.visualize.axes_of", partial(axes_of, count=16))


@pytest.mark.parametrize("name", CONFIGS)
def test_films(runs, tmp_path, capsys, coarse, name):
    """Forward states are draws of q(x_t | x_0) with one noise an item; the reverse ends in generate's samples."""
    run = runs[name]
    status, result, error = call(capsys, "--mode", "visualize", "--workdir", run.folder, "--out", tmp_path / "v",
                                 "--seed", 3, "--num_samples", 5, "--steps", 4, "--frames", 3)  # fmt: skip
    assert status == 0, error
    model = load_model(run.model_file)
    sde, transform, event = model.sde, model.transform, model.event_shape
    labels = torch.arange(5) % model.num_classes if model.num_classes else None
    bound = model if labels is None else Conditional(model, labels)
    drawn = generate(bound, SAMPLERS["heun"](), 5, event, steps=4, seed=3)
    arrays = arrays_of(result, "trajectory")
    assert torch.equal(arrays["x"], drawn.x)
    assert torch.equal(arrays["times"], drawn.times)
    torch.testing.assert_close(arrays["noise_level"], sde.sigma(drawn.times) / sde.alpha(drawn.times))
    _, held_out = run.data()
    items, _ = held_out.batch(spread(len(held_out), 5))
    assert torch.equal(arrays["items"], items)
    x0 = transform.encode(transform.dequantize(items, 0.5))
    z = SeededNoise(sample_seeds(3, 5))(x0)
    assert torch.equal(arrays["forward_times"], drawn.times.flip(0))
    for t, state in zip(arrays["forward_times"], arrays["forward"], strict=True):
        torch.testing.assert_close(transform.encode(state), sde.perturb(x0, t, z), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        transform.encode(arrays["reverse"][0]), sde.sigma(drawn.times[0]) * z, rtol=1e-4, atol=1e-4
    )
    denoised = arrays_of(result, "denoised")
    assert torch.equal(denoised["reverse"], arrays["reverse"])
    assert torch.equal(transform.quantize(denoised["denoised"][-1]), drawn.x)
    with torch.no_grad():
        for t, x, expected in zip(denoised["times"], denoised["reverse"], denoised["denoised"], strict=True):
            torch.testing.assert_close(transform.decode(bound(transform.encode(x), t)), expected, rtol=1e-3, atol=1e-3)
    for what in ("trajectory", "denoised"):
        assert result[f"{what}_frames"] == 5
        with Image.open(tmp_path / f"v-{what}.gif") as image:
            assert image.n_frames == 5
            durations = []
            for frame in range(5):
                image.seek(frame)
                durations.append(image.info["duration"])
            assert durations == [150] * 4 + [1500]
    names = {f"{what}.{kind}" for what in ("trajectory", "denoised") for kind in ("png", "gif")} | {"process.png"}
    assert {Path(path).name[2:] for path in result["pictures"]} == names | (
        {"field.png"} if name == "points" else set()
    )
    opened(result)


def test_shown_states_have_the_spread_of_the_data(process, generator):
    """Gaussian data of mean 0: at every time the shown states have their standard deviation, in data units."""
    transform, std = Transform((3.0,), (2.0,)), 0.7
    times = torch.linspace(process.t_min, process.t_max, 4, dtype=torch.float64)
    x0, z = torch.randn(2, 4000, 2, generator=generator, dtype=torch.float64)
    states = torch.stack([transform.decode(process.perturb(std * x0, t, z)) for t in times])
    shown = as_spread(states, times, process, transform, std)
    torch.testing.assert_close(shown.mean((1, 2)), torch.full((4,), 3.0, dtype=torch.float64), rtol=0, atol=0.08)
    torch.testing.assert_close(shown.std((1, 2)), torch.full((4,), 1.4, dtype=torch.float64), rtol=0.03, atol=0)


def test_frames_of_a_strip_are_spread_in_the_angle(process):
    """From end to end, each the state nearest to its place; all states where there are no more."""
    sigma = process.sigma(times := make_grid(process, "karras", 200)) / process.alpha(times)
    found = chosen(sigma, 7)
    angle = sigma.atan()
    assert (found[0], found[-1], len(found)) == (0, 200, 7)
    wanted = torch.linspace(angle[0].item(), angle[-1].item(), 7, dtype=torch.float64)
    assert (angle[found] - wanted).abs().max() <= angle.diff().abs().max() / 2 + 1e-9
    assert chosen(sigma[:4], 4) == [0, 1, 2, 3]
    assert chosen(torch.tensor([100.0, 99.0, 98.0, 0.1]), 3) == [0, 2, 3]


def test_strips_and_animations_of_colors_and_volumes(tmp_path, generator):
    for event in ((3, 6, 4), (1, 3, 4, 4)):
        x = torch.rand(3, 6, *event, generator=generator)
        reels = [Reel("one", x, torch.tensor([0.1, 1.0, 9.0])), Reel("two", x, torch.tensor([9.0, 1.0, 0.1]))]
        strip(reels, x[0], tmp_path / "s.png", frames=2, kind=kind_of(event))
        assert animation(reels, x[0], tmp_path / "s.gif", kind_of(event)) == 3
        with Image.open(tmp_path / "s.png") as image:
            assert min(image.size) > 100


@pytest.fixture(params=[VPSDE(), VESDE()], ids=["vp", "ve"])
def mixture(request):
    return GaussianMixture(request.param, MEANS, 0.3, transform=Transform((3.0, -1.0), (2.0, 0.5)))


def test_fields_are_the_exact_ones(mixture, generator):
    """Density, score and velocity in data units at three noise levels, by closed forms and autograd of the density."""
    sde, transform = mixture.sde, mixture.transform
    double = GaussianMixture(sde, MEANS.double(), 0.3)
    items = transform.decode(mixture.draw(500, generator))
    for t in panel_times(sde, 1.0)[1:]:
        axes = axes_of(mixture, items, t, count=32)
        found = fields(mixture, axes, t, 400, CPU)
        assert found["mass"].item() == pytest.approx(1, abs=1e-3)
        x = torch.stack(torch.meshgrid(*axes, indexing="xy"), -1).view(-1, 2).requires_grad_()
        exact = double.log_prob(transform.encode(x), t) + transform.log_det((2,))
        # Far out, where the density is below e^-20 of its height, the solver's tolerance shows.
        near = exact > exact.max() - 12
        torch.testing.assert_close(
            found["log_density"].view(-1)[near].double(), exact[near].detach(), rtol=0, atol=0.02
        )
        (score,) = torch.autograd.grad(exact.sum(), x)
        found_score = found["score"].view(-1, 2).double()
        torch.testing.assert_close(found_score[near], score[near], rtol=1e-3, atol=1e-3)
        # dx / dt = f (x - shift) - g^2 / 2 scale^2 score in data units.
        shift, scale = torch.tensor(transform.shift), torch.tensor(transform.scale)
        flow = sde.f(t) * (x.detach() - shift) - 0.5 * sde.g2(t) * scale**2 * score
        size = flow[near].abs().max().item()
        torch.testing.assert_close(
            found["velocity"].view(-1, 2).double()[near], flow[near], rtol=1e-3, atol=1e-4 * size
        )


def test_panels_are_within_the_process():
    for sde in (VPSDE(), VESDE(sigma_min=0.1, sigma_max=0.5)):
        times = panel_times(sde, 0.6)
        assert (times >= sde.t_min).all()
        assert (times < sde.t_max).all()
        assert len(times.unique()) == len(times)
    ratio = VPSDE().sigma(panel_times(VPSDE(), 0.6)) / VPSDE().alpha(panel_times(VPSDE(), 0.6))
    torch.testing.assert_close(ratio, 0.6 * torch.tensor([0.05, 0.25, 0.7, 2.0], dtype=torch.float64))


def test_a_process_begun_later_is_the_same_model(mixture, generator):
    begun = Begun(mixture, 0.3)
    x, t = torch.randn(4, 2, generator=generator), torch.tensor(0.5, dtype=torch.float64)
    assert begun.sde.t_min == 0.3
    assert torch.equal(begun.velocity(x, t), mixture.velocity(x, t))


def test_guided_fields_have_no_density(runs, tmp_path, capsys, coarse):
    run = runs["points"]
    status, result, _ = call(capsys, "--mode", "visualize", "--workdir", run.folder, "--plots", "field", "--out",
                             tmp_path / "g", "--labels", "3", "--guidance_scale", 2)  # fmt: skip
    assert status == 0
    arrays = arrays_of(result, "field")
    assert "mass" not in result
    assert "log_density" not in arrays
    x, cond = run.data()[1].batch(spread(len(run.data()[1]), PLANE_POINTS))
    assert arrays["points"].shape[1] == (cond["labels"] == 3).sum() < len(x), (
        "only points of the class are beneath its field"
    )
    model = load_model(run.model_file)
    x = torch.stack(torch.meshgrid(*arrays["axes"][1], indexing="xy"), -1).view(-1, 2).float()
    with torch.no_grad():
        guided = ClassifierFree(model, torch.tensor(3), 2.0).score(model.transform.encode(x), arrays["t"][1])
    expected = guided / torch.tensor(model.transform.scale)
    torch.testing.assert_close(arrays["score"][1].view(-1, 2), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("unrendered")
def test_what_a_field_is_of_is_said(runs, tmp_path, capsys, coarse, monkeypatch):
    titles = []
    monkeypatch.setattr("score_sde.modes.visualize.field_picture", lambda panels, title, path: titles.append(title))
    start = ["--mode", "visualize", "--workdir", runs["points"].folder, "--out", tmp_path / "v", "--steps", 2,
             "--num_samples", 2, "--frames", 2]  # fmt: skip
    assert main.main([str(a) for a in [*start, "--labels", "3,1", "--guidance_scale", 2]]) == 0
    assert "the field is that of class 3 alone, the first of --labels=3,1\n" in capsys.readouterr().out
    assert main.main([str(a) for a in [*start, "--labels", "3"]]) == 0
    assert "the field is that of class" not in capsys.readouterr().out
    assert main.main([str(a) for a in start]) == 0
    process = "VPSDE(beta_min=0.1, beta_max=20, t_min=0.001, t_max=1, schedule=linear)"
    assert titles == [f"class 3, guidance scale 2, {process}", f"class 3, {process}", process]


@pytest.mark.parametrize(("name", "flags", "words"), [
    ("points", ["--plots", "trajectories"], "needs one of all, process, trajectory, denoised, field (did you mean "
     "trajectory?)"),
    ("digits", ["--plots", "field"], "--plots=field: items of shape (1, 8, 8) are no points in the plane"),
    ("points", ["--plots", "denoised", "--sampler", "ode"], "ODE with 1 step has no states on the way: give --steps"),
    ("points", ["--plots", "denoised", "--sampler", "reverse_sde", "--steps", 2, "--num_samples", 2],
     "ReverseSDE solves each"),
    ("points", ["--plots", "denoised", "--sampler", "auto"], "--sampler=auto: name a sampler"),
    ("points", ["--plots", "trajectory", "--labels", "9"], "class 9 is out of range, allowed are 0 to 7"),
    ("points", ["--plots", "trajectory", "--frames", 1], "frames"),
    ("points", ["--grid", "kaaras"], "--grid = 'kaaras': needs one of"),
    ("points", ["--plots", "process", "--grid", "karras"], "--grid=karras: --plots=process would ignore it"),
    ("points", ["--plots", "process", "--guidance_scale", 2], "--guidance_scale=2: --plots=process would ignore it"),
    ("points", ["--plots", "field", "--labels", "0,1"], "--labels=0,1: --plots=field draws one class"),
    ("points", ["--plots", "field", "--steps", 9], "--steps=9: --plots=field would ignore it"),
    ("points", ["--plots", "process", "--frames", 3], "--frames=3: --plots=process would ignore it"),
    ("points", ["--plots", "field", "--sampler", "ddim"], "--sampler=ddim: --plots=field would ignore it"),
])  # fmt: skip
def test_mistakes(runs, tmp_path, capsys, name, flags, words):
    status, _, error = call(
        capsys, "--mode", "visualize", "--workdir", runs[name].folder, "--out", tmp_path / "v", *flags
    )
    assert status == 2
    assert words in error
    assert not list(tmp_path.iterdir())
