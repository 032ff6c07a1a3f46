"""Several runs compared: from the same noise, by their own commands, and a sentence for those of other data."""

import json
import shlex
import shutil

import numpy as np
import pytest
import torch

from samplers import SAMPLERS, generate
from score_sde.config.config import read_run_config, resolve
from score_sde.run.folder import Run
from sde.checkpoint.models import load_model
from sde.distillation.meanflow import MeanFlow
from sde.guidance.conditional import Conditional
from tests.score_sde.runs import call, untrained


def test_a_teacher_with_its_students(trained, students, tmp_path, capsys):
    runs = ",".join(map(str, (trained, *students)))
    status, result, error = call(
        capsys, "--mode", "compare", "--runs", runs, "--samplers", "ddim,ode", "--num_samples", 40,
        "--labels", "0,1", "--guidance_scale", 2, "--out", tmp_path / "c",
    )  # fmt: skip
    assert status == 0, error
    record = json.loads((tmp_path / "c.json").read_text())
    rows = record["rows"]
    found = {(row["run"], row["sampler"], row["budget"]) for row in rows}
    assert {(name, sampler) for name, sampler, _ in found} == {
        ("points", "ddim"), ("points", "ode"), ("two", "jump"), ("any", "jump")
    }  # fmt: skip
    # A guided teacher's step takes two calls, and so does its closing one; a student's jump one.
    assert [budget for name, sampler, budget in sorted(found, key=str) if sampler == "ddim"] == [10, 20, 4, 8]
    assert sorted(budget for name, _, budget in found if name == "two") == [2]
    assert sorted(budget for name, _, budget in found if name == "any") == [1, 2, 4]
    for row in rows:
        assert row["nfe"] <= (row["budget"] or 1000)
        # The flow that it was taught, not guided, is not among the runs.
        assert (row["error"] is None) == (row["run"] == "any")
        # Each is drawn again by its own command.
        command = shlex.split(row["command"])[2:]
        folder = command[command.index("--workdir") + 1]
        assert folder in runs.split(",")
        assert ("--guidance_scale" in command) == (row["run"] != "any")
    command = next(shlex.split(row["command"]) for row in rows if row["run"] == "any" and row["budget"] == 2)
    status, again, error = call(capsys, *command[command.index("--mode") :], "--out", tmp_path / "again")
    assert status == 0, error
    assert again["nfe"] == 2
    page = (tmp_path / "c.html").read_text()
    assert "any: jump" in page and "points: ddim" in page  # noqa: PT018
    assert "A student's is that to the flow of its teacher, where that is among the runs" in page
    assert record["notes"][0] == "points: without ddim at 1, 2 and 3 calls, as one step takes 4."
    assert result["recommended"]["run"] in ("points", "two", "any")


def test_a_students_error_is_that_to_the_flow_of_its_teacher(trained, students, tmp_path, capsys):
    """Also where the teacher has none of its own, as its samples are stochastic."""
    runs = ",".join(map(str, (students[1], trained)))
    status, _, error = call(
        capsys, "--mode", "compare", "--runs", runs, "--samplers", "ancestral", "--num_samples", 40, "--nfe", 2,
        "--labels", "1", "--seed", 4, "--out", tmp_path / "c",
    )  # fmt: skip
    assert status == 0, error
    found = {row["run"]: row["error"] for row in json.loads((tmp_path / "c.json").read_text())["rows"]}
    opened = {folder: load_model(folder / "model.safetensors", kind) for folder, kind in
              ((trained, "denoiser"), (students[1], "flow_map"))}  # fmt: skip
    labels = torch.ones(40, dtype=torch.long)
    jumps, teacher = opened[students[1]].bound(labels), Conditional(opened[trained], labels)
    own = generate(jumps, SAMPLERS["jump"](), 40, (2,), steps=2, grid=MeanFlow().grid, seed=4).x
    exact = generate(teacher, SAMPLERS["ode"](1e-6, 1e-6), 40, (2,), seed=4).x
    data = Run(trained, resolve(read_run_config(trained), []), torch.device("cpu")).data()[0]
    encode = data.transform.encode
    mean, var = data.moments
    std = (var.mean() + mean.var(correction=0)).sqrt()
    difference = (encode(own) - encode(exact)).square().mean().sqrt()
    assert found == {"any": pytest.approx((difference / std).item(), rel=1e-3), "points": None}


def test_the_noise_is_the_same(tmp_path, capsys):
    """Of two score models over the same data: what each draws is what ``generate`` draws with the seed, and errors are
    those to its own flow. Their transforms may differ."""
    x = np.random.default_rng(0).normal(2.0, 3.0, (60, 2))
    runs = [untrained(tmp_path / name, x, None, f"--config.sde.name={name}") for name in ("vp", "flow")]
    shutil.copy(runs[0].folder / "data.npz", runs[1].folder / "data.npz")
    status, result, error = call(
        capsys, "--mode", "compare", "--workdir", runs[1].folder, "--runs", f"{runs[0].folder},{runs[1].folder}",
        "--samplers", "ddim", "--nfe", "3,5", "--num_samples", 64,
    )  # fmt: skip
    assert status == 0, error
    record = json.loads((runs[1].folder / "compare" / "compare.json").read_text())
    assert record["run"] == "flow, vp"
    assert [(row["run"], row["nfe"]) for row in sorted(record["rows"], key=lambda row: (row["run"], row["nfe"]))] == [
        ("flow", 3), ("flow", 5), ("vp", 3), ("vp", 5)
    ]  # fmt: skip
    # Pictures and distances are of these.
    assert result["num_samples"] == 64
    assert all(row["error"] is not None for row in record["rows"])


@pytest.mark.parametrize(("other", "words"), [
    ({"x": np.zeros((60, 3)) + np.arange(60)[:, None]}, "has items of shape (3,), "),
    ({"x": np.random.default_rng(1).normal(2.0, 3.0, (60, 2))}, "are others than those of"),
    ({"x": np.random.default_rng(0).normal(2.0, 3.0, (80, 2))}, "has held-out items: 20, "),
    ({"x": np.random.default_rng(0).integers(0, 8, (60, 2)), "more": ["--config.data.num_levels=8"]}, "levels: 8, "),
])  # fmt: skip
def test_runs_over_other_data(tmp_path, capsys, other, words):
    run = untrained(tmp_path / "a", np.random.default_rng(0).normal(2.0, 3.0, (60, 2)))
    second = untrained(tmp_path / "b", other["x"], None, *other.get("more", ()))
    status, _, error = call(capsys, "--mode", "compare", "--runs", f"{run.folder},{second.folder}", "--num_samples", 64)
    assert (status, words in error) == (2, True), error
    assert "runs over the same data alone can be compared" in error
    assert not (run.folder / "compare").exists()


@pytest.mark.parametrize(("runs", "words"), [
    ("{a},nowhere", "nowhere is no run folder; name folders with commas between"),
    ("{a},{b},{b}", "names a run folder twice"),
    ("{a},", "nothing is no run folder"),
])  # fmt: skip
def test_what_is_no_list_of_runs(tmp_path, capsys, runs, words):
    x = np.random.default_rng(0).normal(2.0, 3.0, (60, 2))
    folders = {name: untrained(tmp_path / name, x).folder for name in "ab"}
    status, _, error = call(capsys, "--mode", "compare", "--runs", runs.format(**folders), "--num_samples", 64)
    assert (status, words in error) == (2, True), error


def test_a_student_alone(students, tmp_path, capsys):
    """It is compared by its jumps."""
    status, _, error = call(
        capsys, "--mode", "compare", "--workdir", students[1], "--num_samples", 40, "--labels", "1", "--seed", 4,
        "--nfe", "2", "--out", tmp_path / "c",
    )  # fmt: skip
    assert status == 0, error
    row = json.loads((tmp_path / "c.json").read_text())["rows"]
    assert [(one["sampler"], one["nfe"], one["run"]) for one in row] == [("jump", 2, None)]
