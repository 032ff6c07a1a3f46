"""Samplers compared: equal noise, counted calls, errors against closed forms, and what is recommended."""

import json
import math
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ml_collections import ConfigDict

from samplers import DDIM, SAMPLERS, SCORE_SAMPLERS, Ancestral, generate, sample
from samplers.grid import make_grid
from samplers.noise.seeded import SeededNoise, sample_seeds
from score_sde.comparison.budgets import steps_within
from score_sde.comparison.candidates import Candidate, find_candidates
from score_sde.comparison.ranking import show
from score_sde.comparison.reference import Reference
from score_sde.comparison.sampling import sample_all
from score_sde.config.config import config_path, read_config, resolve
from score_sde.evaluation.features import extractor
from score_sde.kinds import kind_of
from score_sde.metrics.frechet import frechet_distance
from score_sde.metrics.metric import METRICS
from score_sde.metrics.splits import DIVISIONS
from score_sde.modes.compare import compare
from score_sde.run.folder import Run
from score_sde.training.spec import denoiser_spec
from sde import VPSDE
from sde.checkpoint.models import save_model
from sde.checkpoint.spec import build_denoiser
from sde.data import Dataset
from sde.data.transform import Transform
from sde.guidance.classifier_free import ClassifierFree
from sde.guidance.interval import GuidanceInterval
from tests.batteries.tiers import ADAPTIVE
from tests.oracles.domination import dominated
from tests.oracles.exact import Gaussian, GaussianMixture
from tests.samplers.test_protocol import Bits, Reverse, TwoStates
from tests.score_sde.runs import call

FIXED = [name for name in SCORE_SAMPLERS if name not in ADAPTIVE]


def gaussian_run(folder, generator, shape=(3,), count=600):
    """A run folder whose model is the exact one of its data, which are Gaussian."""
    mean = 0.3 * torch.randn(shape, dtype=torch.float64, generator=generator)
    model = Gaussian(VPSDE(), mean, 0.5)
    model.event_shape, model.num_classes, model.null_trained, model.conditions = shape, None, True, {}
    parts = [Dataset(model.draw(count, generator).float(), None, None, Transform()) for _ in range(2)]
    data = {"kind": kind_of(shape).name, "root": ""}
    run = Run(folder, ConfigDict({"sampler": {"name": "heun"}, "data": data}), torch.device("cpu"))
    run.model_file.write_bytes(b"for plans, which are kept by a hash of it")
    # Nor does it describe the model.
    vars(run)["_spec"] = {}
    run.model = run.sampled_model = lambda: model
    run.data, vars(run)["items"] = (lambda: tuple(parts)), tuple(parts)
    return run, model


def test_errors_are_those_against_the_exact_flow(tmp_path, generator, capsys):
    run, model = gaussian_run(tmp_path, generator)
    result = compare(run, samplers="ddim,heun,dpmpp,ancestral,auto,ode", nfe="4,9", num_samples=32)
    rows = json.loads((tmp_path / "compare" / "compare.json").read_text())["rows"]
    times = torch.tensor([model.sde.t_max, model.sde.t_min], dtype=torch.float64)
    noise = SeededNoise(sample_seeds(0, 32))(torch.empty(32, 3, dtype=torch.float64)) * model.sde.sigma(times[0])
    exact = model(model.flow(noise, *times), times[1])
    mean, var = run.data()[0].moments
    std = (var.mean() + (mean - mean.mean()).square().mean()).sqrt()
    assert len(rows) == 12
    for row in rows:
        if row["sampler"] == "ancestral":
            assert row["error"] is None
        elif row["sampler"] not in ("auto", "ode"):
            drawn = generate(model, SAMPLERS[row["sampler"]](), 32, (3,), steps=row["steps"])
            expected = ((drawn.x - exact).square().mean().sqrt() / std).item()
            assert row["error"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    errors = {(row["sampler"], row["budget"], row["tolerance"]): row["error"] for row in rows}
    assert errors["auto", 9, None] < 1e-3 < errors["ddim", 9, None]
    # Single starts decide on the larger one.
    assert errors["ode", None, 1e-3] < 0.02
    assert errors["ode", None, 1e-2] < 0.2
    assert result["recommended"]["sampler"] in capsys.readouterr().out


@pytest.mark.parametrize(("split", "word"), [("test", "held-out"), ("train", "training")])
def test_distances_are_those_of_the_samples(tmp_path, generator, split, word):
    run, model = gaussian_run(tmp_path, generator)
    compare(run, samplers="ancestral,ddim", nfe="6", num_samples=40, seed=3, split=split, out=str(tmp_path / "x.html"))
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["against"] == word
    held_out, parts = run.data()[split == "test"].items.double(), []
    kept = [np.setdiff1d(np.arange(40), part) for part in np.array_split(np.arange(40), 16)]
    for row in record["rows"]:
        x = generate(model, SAMPLERS[row["sampler"]](), 40, (3,), steps=row["steps"], seed=3).x
        assert row["value"] == pytest.approx(frechet_distance(x, held_out), rel=1e-9)
        assert row["nfe"] == 6
        parts.append(np.array([frechet_distance(x[rows], held_out) for rows in kept]))
    best, other = record["rows"]
    assert (best["behind"], best["behind_stderr"]) == (0, 0)
    assert other["behind"] == other["value"] - best["value"]
    change = parts[1] - parts[0]
    assert other["behind_stderr"] == pytest.approx((15 / 16 * ((change - change.mean()) ** 2).sum()) ** 0.5, rel=1e-9)
    assert other["stderr"] == pytest.approx((15 / 16 * ((parts[1] - parts[1].mean()) ** 2).sum()) ** 0.5, rel=1e-9)
    assert (tmp_path / "x.html").exists()


def test_several_metrics_and_the_first_ranks(tmp_path, generator):
    run, model = gaussian_run(tmp_path, generator)
    compare(run, samplers="ancestral,ddim", nfe="6,3", metrics="recall,energy", num_samples=64)
    record = json.loads((tmp_path / "compare" / "compare.json").read_text())
    held_out, rows = run.data()[1].items.double(), record["rows"]
    for its in rows:
        x = generate(model, SAMPLERS[its["sampler"]](), 64, (3,), steps=its["steps"]).x
        for name in ("recall", "energy"):
            assert its["metrics"][name]["value"] == pytest.approx(METRICS[name](x, held_out), rel=1e-9)
        assert its["value"] == its["metrics"]["recall"]["value"]
        assert its["behind"] == max(other["value"] for other in rows) - its["value"]
        assert its["metrics"]["energy"]["behind"] == pytest.approx(
            its["metrics"]["energy"]["value"] - min(other["metrics"]["energy"]["value"] for other in rows), abs=1e-15
        )
    assert record["metrics"] == ["recall", "energy"]
    assert record["real"].keys() == {"recall", "energy"}
    assert len(record["real"]["energy"]["values"]) == DIVISIONS
    assert all(its["metrics"]["energy"]["reading"] for its in rows)
    chosen = next(its for its in rows if its["recommended"])
    assert not dominated(chosen, rows, "nfe")


def test_columns_of_long_names(capsys):
    names = ["two_sample_neighbors", "kernel"]
    row = {"steps": 4, "nfe": 5.0, "seconds": 0.002, "error": 0.14, "recommended": True, "command": "python main.py",
           "tied": False, "reading": "worse than real items",
           "metrics": {name: {"value": 0.5, "stderr": 0.1} for name in names}}  # fmt: skip
    rows = [row | {"title": name} for name in ("ode", "reverse_diffusion")]
    show({"metrics": names, "num_samples": 9, "items": 9, "against": "held-out", "division": [9, 9],
          "real": {name: {"value": 0.5, "spread": 0.1} for name in names},
          "rows": rows, "notes": []})  # fmt: skip
    head, *lines = capsys.readouterr().out.splitlines()[1:4]
    for line in lines:
        assert line.index("5", line.index("4 ")) == head.index("calls") + 4
        assert [line[head.index(name) :][:4] for name in names] == ["0.50", "0.50"]
        assert line.endswith("0.14")
        assert line.rindex("0.14") == head.index("error to")


@pytest.mark.parametrize(("shape", "images"), [((1,), 0), ((5,), 4), ((2, 6), 4), ((1, 4, 4), 4)])
def test_events_of_any_shape(tmp_path, generator, shape, images):
    """Two samplers, the exact flow and held-out items, wherever there is something to draw."""
    run, _ = gaussian_run(tmp_path, generator, shape)
    count = 2 * min(64, math.prod(shape))
    compare(run, samplers="ddim,ancestral", nfe="3", num_samples=max(8, count), batch_size=5)
    page, record = (tmp_path / "compare" / f"compare.{kind}" for kind in ("html", "json"))
    assert page.read_text().count('src="data:image/png;base64,') == images
    assert json.loads(record.read_text())["features"] == min(64, math.prod(shape))


def candidate(name, steps=5, **options):
    return Candidate(name, SAMPLERS[name](**options), make_grid(VPSDE(), "log_snr", steps), "", True, budget=2 * steps)


def test_all_start_from_the_same_noise_and_draw_what_generate_draws(generator):
    model = GaussianMixture(VPSDE(), torch.randn(4, 2, dtype=torch.float64, generator=generator), 0.2)
    candidates = [candidate("ddim"), candidate("heun", 7), candidate("ancestral"), candidate("pc", 3)]
    found = sample_all(model, candidates, 10, (2,), seed=5)
    starts = [torch.cat([part.path.x[0] for part in drawn.parts]) for drawn in found]
    assert all(torch.equal(start, starts[0]) for start in starts)
    assert len({row.numpy().tobytes() for row in starts[0]}) == 10
    for its, drawn in zip(candidates, found, strict=True):
        assert [len(part.x) for part in drawn.parts] == [2, 3, 2, 3]
        once = generate(model, its.sampler, 10, (2,), grid=its.times, seed=5)
        assert torch.equal(drawn.nfe, once.nfe)
        torch.testing.assert_close(drawn.x, once.x, rtol=1e-12, atol=1e-12)


class Labelled(GaussianMixture):
    """Conditional and unconditional in one; the conditions make no difference."""

    null_trained, num_classes, event_shape = True, 4, (2,)

    def forward(self, x, t, cond=None):
        return super().forward(x, t)


@pytest.mark.parametrize("kind", ["plain", "guided", "interval"])
def test_counted_calls_use_the_budget_and_never_exceed_it(generator, kind):
    base = Labelled(VPSDE(), torch.randn(4, 2, dtype=torch.float64, generator=generator), 0.2)

    def guides(labels):
        model = base if kind == "plain" else ClassifierFree(base, labels, 2.0)
        return GuidanceInterval(model, 0.3, 3.0) if kind == "interval" else model

    guides.denoiser = base
    run = SimpleNamespace(config=SimpleNamespace(sampler={"name": "heun"}))
    labels = torch.arange(3)
    candidates, notes = find_candidates(run, guides, labels, FIXED, [5, 12])
    # One sentence has all that a budget is too small for.
    left_out = {*FIXED} - {its.name for its in candidates if its.budget == 5}
    assert len(candidates) + len(left_out) == 2 * len(FIXED)
    assert len(notes) == (kind == "guided") == bool(left_out)
    assert all(name in notes[0] for name in left_out)
    for its in candidates:
        steps = len(its.times) - 1
        calls = [
            generate(guides(labels), its.sampler, 3, (2,), steps=count).nfe.max().item() for count in (steps, steps + 1)
        ]
        assert calls[0] <= its.budget < calls[1], its.label
        ends = [
            sample(guides(labels), its.sampler, torch.ones(3, 2).double(), its.times, SeededNoise(seeds))
            for seeds in ([0, 1, 2], [3, 4, 5])
        ]
        assert its.deterministic == torch.equal(*ends), its.label
        assert its.flags == f"--sampler {its.name} --steps {steps}"


@pytest.mark.parametrize(
    "calls_of", [lambda n: n + 1, lambda n: 2 * n, lambda n: 3 * n + 2, lambda n: n + max(0, n - 4)]
)
def test_steps_within(calls_of):
    for budget in range(1, 40):
        wanted = max((n for n in range(1, 60) if calls_of(n) <= budget), default=0)
        assert steps_within(calls_of, budget) == wanted


def test_steps_that_cost_nothing_end():
    assert steps_within(lambda steps: 3, 10) == 10


def test_options_of_the_run_are_those_of_its_sampler(generator):
    model = GaussianMixture(VPSDE(), torch.randn(4, 2, dtype=torch.float64, generator=generator), 0.2)
    model.event_shape = (2,)
    run = SimpleNamespace(config=SimpleNamespace(sampler={"name": "dpmpp", "solver_order": 3}))

    def guides(labels):
        return model

    guides.denoiser = model
    found, _ = find_candidates(run, guides, None, ["dpmpp", "ddim", "ode"], [6])
    assert [its.sampler for its in found][:2] == [SAMPLERS["dpmpp"](3), DDIM()]
    assert {its.flags for its in found[2:]} == {
        f"--sampler ode --config.sampler.rtol={value} --config.sampler.atol={value}" for value in (0.01, 0.001)
    }
    found, notes = find_candidates(run, guides, None, ["ddim", "heun"], [1, 2])
    assert [its.label for its in found] == ["ddim, 2 calls"]
    assert notes == ["without ddim at 1 call, as one step takes 2; heun at 1 and 2 calls, as one step takes 3."]


def test_budgets_that_no_step_is_within(tmp_path, generator):
    """One call is the closing denoising one, so that a score model has no step of it; adaptive samplers are left."""
    run, _ = gaussian_run(tmp_path, generator)
    words = (
        r"--nfe=1 leaves nothing to compare, without ddim at 1 call, as one step takes 2; heun at 1 call, as one step "
        r"takes 3; allow more calls, among which the closing denoising one counts"
    )
    with pytest.raises(ValueError, match=f"^{words}$"):
        compare(run, samplers="ddim,heun", nfe="1", num_samples=40)
    assert not (tmp_path / "compare").exists()


class Torn(Ancestral):
    """Becomes NaN."""

    def step(self, model, x, t, s, noise, carry=None):
        return x * torch.nan, carry


def test_a_sampler_that_fails_fails_alone(tmp_path, generator, monkeypatch):
    run, _ = gaussian_run(tmp_path, generator)
    monkeypatch.setitem(SAMPLERS, "torn", Torn)
    model = run.model()
    torn = Candidate("torn", Torn(), make_grid(model.sde, "log_snr", 3), "", False, budget=4)
    failed, fine = sample_all(model, [torn, candidate("ddim")], 8, (3,))
    assert failed.failure.startswith("torn, 4 calls, is left out: sample")
    assert "became non-finite in step 1 of 3" in failed.failure
    assert len(fine.x) == 8


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder as if it were: of random weights."""
    folder = tmp_path_factory.mktemp("runs") / "a run"
    config = resolve(read_config(config_path("points")), ["--config.model.network.width=16"])
    run = Run(folder, config, torch.device("cpu"))
    run.write_config()
    spec = denoiser_spec(config, run.data()[0])
    save_model(run.model_file, "denoiser", spec, build_denoiser(spec).state_dict())
    return folder


def test_from_the_command_line(trained, capsys):
    status, result, _ = call(capsys, "--mode", "compare", "--workdir", trained, "--samplers", "ddim,auto,pc", "--nfe",
                             "9,5", "--num_samples", 60, "--guidance_scale", 2, "--labels", "1,0")  # fmt: skip
    assert status == 0
    record = json.loads((trained / "compare" / "compare.json").read_text())
    assert record["notes"] == ["without pc at 5 calls, as one step takes 6."]
    assert [its["nfe"] for its in record["rows"]] == [4, 4, 6, 8, 8]
    assert all(its["nfe"] <= its["budget"] for its in record["rows"])
    assert all(its["value"] > 0 < its["stderr"] for its in record["rows"])
    assert [its["recommended"] for its in record["rows"]].count(True) == 1
    words = shlex.split(result["recommended"]["command"])
    assert words[:6] == ["python", "main.py", "--mode", "sample", "--workdir", str(trained)]
    status, again, _ = call(capsys, *words[2:])
    assert status == 0
    assert again["nfe"] == result["recommended"]["nfe"]
    assert again["num_samples"] == 60


@pytest.mark.parametrize(("arguments", "words"), [
    (["--samplers", "auto,heum"], ["--samplers = 'heum'", "did you mean heun?"]),
    (["--nfe", "2", "--samplers", "heun,pc"], ["--nfe=2 leaves nothing to compare", "takes 3", "allow more calls"]),
    (["--nfe", "0,5"], ["--nfe=0,5", "at least 1", "as in 5,10,20"]),
    (["--nfe", "ten"], ["--nfe=ten", "as in 5,10,20"]),
    (["--num_samples", "3"], ["--num_samples=3", "2 features", "at least 4 samples"]),
    (["--metrics", "frechet, recal"], ["--metrics = 'recal'", "did you mean recall?"]),
    (["--metrics", "kernel", "--num_samples", "20"], ["--num_samples=20", "kernel distance (KID)", "at least 50"]),
    (["--features", "nothing.pt"], ["--features=nothing.pt", "a TorchScript file that exists"]),
    (["--labels", "7"], ["--labels=7", "out of range"]),
    (["--steps", "5"], ["--steps", "--mode compare would ignore it"]),
    (["--config.sampler.order=2"], ["--config.sampler.order=2: with --mode compare only config.data can be changed"]),
])  # fmt: skip
def test_mistakes(trained, capsys, arguments, words):
    status, _, error = call(capsys, "--mode", "compare", "--workdir", trained, *arguments)
    assert status == 2
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) == 1
    for word in words:
        assert word in error


class Independent(Bits):
    """Bits as the denoiser of a run."""

    transform, event_shape, num_classes, conditions, null_trained = Transform(), (8,), None, {}, True


def test_a_process_without_a_flow(tmp_path, generator, capsys, monkeypatch):
    """Of a chain on integers the samplers that know it are compared; the rest is named before any work."""
    model = Independent(TwoStates(), 0.85)
    run, _ = gaussian_run(tmp_path, generator, (8,))
    parts = tuple(Dataset((torch.rand(600, 8, generator=generator) < 0.85).float(), None, None, Transform())
                  for _ in range(2))  # fmt: skip
    # Nor does it describe the model.
    vars(run)["_spec"] = {}
    run.model = run.sampled_model = lambda: model
    run.data, vars(run)["items"] = (lambda: parts), parts
    with pytest.raises(ValueError, match="--samplers=heun,auto: TwoStates is no GaussianProcess"):
        compare(run, samplers="heun,auto", nfe="5")
    monkeypatch.setitem(SAMPLERS, "reverse", Reverse)
    monkeypatch.setattr("score_sde.modes.compare.CHOICES_OF_SAMPLER", ("reverse", "heun", "auto"))
    result = compare(run, samplers="reverse,heun,auto", nfe="3,5", num_samples=64)
    record, out = json.loads((tmp_path / "compare" / "compare.json").read_text()), capsys.readouterr().out
    sentence = "heun and auto, and errors against the exact flow, are left out, as TwoStates is no GaussianProcess"
    assert out.startswith(sentence)
    assert record["notes"][0] == out.partition("\n")[0]
    assert [(row["sampler"], row["nfe"], row["error"]) for row in record["rows"]] == [
        ("reverse", 3, None), ("reverse", 5, None)
    ]  # fmt: skip
    assert result["recommended"]["sampler"] == "reverse"
    chosen = result["recommended"]["steps"]
    drawn = generate(model, Reverse(), 64, (8,), steps=chosen, seed=0).x
    frechet = next(row["value"] for row in record["rows"] if row["steps"] == chosen)
    reference = Reference(parts[0], parts[1], extractor(run, "data", parts[0]), samples=64)
    assert reference.measure("frechet", reference.features(drawn)) == pytest.approx(frechet)
