"""--mode distill: students are run folders that go on where they were, and what makes no sense is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from score_sde.cli import main
from score_sde.config.students import student_values
from sde.checkpoint.models import load_model
from sde.checkpoint.snapshots import stored_spec
from sde.distillation.trainer import StudentTrainer
from tests.score_sde.runs import DISTILLING, call, distilling, trained_once

METHODS = {
    "progressive": ["--config.distillation.method.first_steps=4", "--config.distillation.method.steps=1"],
    # A target of its own, and what computes in another dtype.
    "consistency": ["--config.distillation.method.target_decay=0.8", "--config.training.precision=bfloat16"],
    "ect": [],
    "meanflow": ["--config.training.precision=bfloat16"],
}


def distill(teacher, folder, method, *more):
    return distilling(teacher, folder, method, *METHODS[method], *more)


@pytest.fixture
def student(students):
    """A student of two steps, told of guidance scales from 1 to 4."""
    return students[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_command_goes_on_bit_for_bit(trained, tmp_path, capsys, monkeypatch, method):
    """In the middle of a stage: of three stages with 4 steps each, the second."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main.main(distill(trained, whole, method)) == 0
    step = StudentTrainer.training_step

    def killed(self):
        if self.step == 7:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(StudentTrainer, "training_step", killed)
        assert main.main(distill(trained, broken, method)) == 130
    assert not (broken / "checkpoints" / "denoiser-00000009.pt").exists()
    capsys.readouterr()
    # Nothing has to be said again.
    assert main.main(["--mode", "distill", "--workdir", str(broken)]) == 0
    assert f"continuing {broken} at step 6" in capsys.readouterr().out
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, broken))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    lines = [
        [{k: line[k] for k in ("step", "loss", "lr")} for line in map(json.loads, path.open()) if "loss" in line]
        for path in (whole / "metrics.jsonl", broken / "metrics.jsonl")
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 12


def test_a_student_is_a_run_folder(student, tmp_path_factory, tmp_path, capsys):
    trained = trained_once(tmp_path_factory)
    config = json.loads((student / "config.json").read_text())
    held = config["distillation"]
    assert held["teacher"] == str(trained)
    assert len(held["sha256"]) == 64
    assert held["guidance_scale"] == [1.0, 4.0]
    assert held["method"]["name"] == "progressive"
    assert config["sampler"]["name"] == "jump"
    for section in ("data", "sde", "model"):
        assert config[section] == json.loads((trained / "config.json").read_text())[section]
    spec = stored_spec(student / "model.safetensors")
    assert len(spec["flow_map"]["times"]) == 3
    status, result, _ = call(capsys, "--mode", "sample", "--workdir", student, "--num_samples", 6)
    assert (status, result["sampler"], result["nfe"]) == (0, "jump", 2)
    samples = {}
    for scale in (1, 4):
        out = tmp_path / f"scale-{scale}"
        flags = ["--num_samples", 6, "--guidance_scale", scale, "--labels", "0", "--out", out]
        assert call(capsys, "--mode", "sample", "--workdir", student, *flags)[0] == 0
        samples[scale] = np.load(f"{out}.npz")["x"]
    assert not np.allclose(samples[1], samples[4])
    few = ["--num_samples", 50, "--metrics", "frechet", "--subsamples", 2]
    status, result, _ = call(capsys, "--mode", "evaluate", "--workdir", student, *few)
    assert status == 0
    assert result["frechet"] > 0


def test_check_says_of_a_student_what_its_samples_are(student, capsys):
    status, result, _ = call(capsys, "--mode", "check", "--workdir", student, "--num_samples", 64)
    assert status == 0
    assert result["student"]["method"] == "progressive"
    assert result["calls"] == 2
    assert {*result["faults"]} <= {"samples off"}
    check = ["--mode", "check", "--workdir", student, "--num_samples", 64]
    status, result, _ = call(capsys, *check, "--config.data.toy=spiral")
    assert (status, result["faults"]) == (0, ["value range mismatch"])
    status, _, error = call(capsys, *check, "--config.data.toy=ring")
    assert (status, "the model has 2 classes, the data 8: name the data of training" in error) == (2, True)


def test_a_program_jumps_as_the_student_does(student, tmp_path, capsys):
    assert call(capsys, "--mode", "export", "--workdir", student, "--out", tmp_path / "program")[0] == 0
    program = torch.export.load(tmp_path / "program" / "model.pt2").module()
    model = load_model(student / "model.safetensors", "flow_map")
    x, t, s = torch.randn(3, 2), torch.tensor([1.0, 0.7, 0.4]), torch.tensor([0.5, 0.1, 0.001])
    cond = {"labels": torch.tensor([0, 1, -1]), "guidance_scale": torch.tensor([1.0, 2.0, 3.0])}
    torch.testing.assert_close(program(x, t, s, cond), model(x, t, s, cond), rtol=1e-4, atol=1e-5)


def test_a_student_begins_with_its_teachers_weights(trained, student):
    own, others = load_file(trained / "model.safetensors"), load_file(student / "model.safetensors")
    assert own.keys() < others.keys()
    model = load_model(student / "model.safetensors", "flow_map")
    assert model.guidance == (1.0, 4.0)
    assert model.transform.digest == load_model(trained / "model.safetensors").transform.digest


def test_meanflow_and_ect_need_no_teacher(tmp_path, capsys):
    width = ["--config.model.network.width=16", "--config.model.network.layers=1"]
    for method in ("ect", "meanflow"):
        anew = ["--mode", "distill", "--method", method, "--config", "points", "--workdir", tmp_path / method]
        assert call(capsys, *anew, *DISTILLING, *width)[0] == 0
        assert json.loads((tmp_path / method / "config.json").read_text())["distillation"]["teacher"] == ""
        status, result, _ = call(capsys, "--mode", "sample", "--workdir", tmp_path / method, "--num_samples", 4)
        assert (status, result["nfe"]) == (0, 2)
        steps = ["--steps", 1] if method == "ect" else ["--steps", 3, "--sampler", "renoise"]
        assert call(capsys, "--mode", "sample", "--workdir", tmp_path / method, "--num_samples", 4, *steps)[0] == 0


REFUSED = {
    "a likelihood": (["--mode", "likelihood", "--workdir", "STUDENT"], "holds a student, which jumps from noise"),
    "latents": (["--mode", "encode", "--workdir", "STUDENT"], "it has no score, and so no likelihood, no latents"),
    "averages": (["--mode", "ema", "--workdir", "STUDENT"], "holds a student, and averages are compared by the"),
    "restoration": (["--mode", "restore", "--workdir", "STUDENT"], "nothing that edits, restores"),
    "a score sampler": (["--mode", "sample", "--workdir", "STUDENT", "--sampler", "heun"], "take jump or renoise"),
    "a plan": (["--mode", "sample", "--workdir", "STUDENT", "--sampler", "auto"], "--sampler=auto: the student in"),
    "a tolerance": (["--mode", "sample", "--workdir", "STUDENT", "--tolerance", "0.1"], "--tolerance=0.1: a student"),
    "more steps": (["--mode", "sample", "--workdir", "STUDENT", "--steps", "4"], "to 2 jumps at times of its own"),
    "a jump of a teacher": (["--mode", "sample", "--workdir", "RUN", "--sampler", "jump"], "holds a score model"),
    "a scale out of range": (["--mode", "sample", "--workdir", "STUDENT", "--guidance_scale", "5"],
                             "--guidance_scale = 5: this flow map was trained with scales from 1 to 4"),
    "other guidance": (["--mode", "sample", "--workdir", "STUDENT", "--classifier_scale", "1"],
                       "--classifier_scale: the student in"),
    "training": (["--mode", "train", "--workdir", "STUDENT"], "holds a student, which goes on with --mode distill"),
    "a student as teacher": (["--mode", "distill", "--teacher", "STUDENT", "--workdir", "NEW"],
                             "is a student itself, whose jumps are no score to distill: name its own teacher,"),
    "no teacher": (["--mode", "distill", "--method", "progressive", "--config", "points", "--workdir", "NEW"],
                   "--method=progressive asks a teacher: name its run folder"),
    "a folder that is none": (["--mode", "distill", "--teacher", "NOWHERE", "--workdir", "NEW"],
                              "--teacher=NOWHERE is no run folder"),
    "three stages": (["--mode", "distill", "--teacher", "RUN", "--workdir", "NEW",
                      "--config.distillation.method.first_steps=3"],
                     "config.distillation.method.first_steps = 3: needs a power of two"),
    "too few steps": (["--mode", "distill", "--teacher", "RUN", "--workdir", "NEW", "--config.training.steps=3"],
                      "config.training.steps = 3: needs at least one for each of 4 stages"),
    "a run of its own": (["--mode", "distill", "--teacher", "RUN", "--workdir", "RUN"],
                         "holds a run of another mode than distill"),
    "another method": (["--mode", "distill", "--method", "ect", "--workdir", "STUDENT"],
                       "--method=ect: the student in STUDENT was begun with 'progressive'"),
    "no method": (["--mode", "distill", "--teacher", "RUN", "--method", "progresive", "--workdir", "NEW"],
                  "did you mean progressive?"),
    "another network": (["--mode", "distill", "--teacher", "RUN", "--workdir", "NEW",
                         "--config.model.network.width=8"], "a student has its teacher's network and process"),
    "another law of times": (["--mode", "distill", "--teacher", "RUN", "--workdir", "NEW",
                              "--config.training.time_mean=1"], "by the loss and the times of its method"),
    "weights of a score": (["--mode", "distill", "--config", "points", "--method", "ect", "--workdir", "NEW",
                            "--config.training.uncertainty_weighting=True"], "by the loss and the times of its method"),
    "three scales": (["--mode", "distill", "--teacher", "RUN", "--workdir", "NEW", "--guidance_scale", "1,2,3"],
                     "needs one number, or the least and the largest of a range"),
    "guided data": (["--mode", "distill", "--teacher", "RUN", "--method", "ect", "--workdir", "NEW",
                     "--guidance_scale", "2"], "--guidance_scale=2: guides the teacher"),
    "a program of another kind": (["--mode", "export", "--workdir", "STUDENT", "--format", "diffusers"],
                                  "--format=diffusers: has no place for a student"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(trained, student, tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    command, words = REFUSED[name]
    places = {"RUN": str(trained), "STUDENT": str(student), "NEW": str(tmp_path / "new")}
    status, _, error = call(capsys, *(places.get(part, part) for part in command))
    assert status == 2
    assert words.replace("STUDENT", str(student)) in error
    assert not (tmp_path / "new" / "config.json").exists()


def test_a_teachers_weighting_of_times_stays_its_own(trained, tmp_path):
    config = json.loads((trained / "config.json").read_text())
    config["training"]["uncertainty_weighting"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    values = student_values(tmp_path / "student", None, str(tmp_path), "ect", None)
    assert values["training"] == config["training"] | {"uncertainty_weighting": False}


def test_other_weights_of_the_teacher_are_refused(trained, student, tmp_path, capsys):
    taught, folder = tmp_path / "teacher", tmp_path / "student"
    shutil.copytree(trained, taught)
    assert main.main(distill(taught, folder, "ect", "--config.training.steps=6")) == 0
    shutil.copy(taught / "ema" / "0.5.safetensors", taught / "model.safetensors")
    capsys.readouterr()
    status, _, error = call(capsys, "--mode", "distill", "--workdir", folder, "--config.training.steps=9")
    assert status == 2
    assert "its weights are not those with which the student" in error
