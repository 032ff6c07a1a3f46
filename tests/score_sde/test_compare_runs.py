"""Several runs compared: from the same noise, by their own commands, and a sentence for those of other data."""

import json
import shlex
import shutil

import numpy as np
import pytest

from tests.score_sde.runs import call, untrained

pytestmark = pytest.mark.usefixtures("unrendered")


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
    assert [budget for name, sampler, budget in sorted(found, key=str) if sampler == "ddim"] == [10, 20, 4, 5, 8]
    assert sorted(budget for name, _, budget in found if name == "two") == [2]
    assert sorted(budget for name, _, budget in found if name == "any") == [1, 2, 4]
    for row in rows:
        assert row["nfe"] <= (row["budget"] or 1000)
        assert (row["error"] is None) == (row["run"] != "points")
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
    assert result["recommended"]["run"] in ("points", "two", "any")


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
