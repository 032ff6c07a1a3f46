"""Training as a user meets it when something goes wrong: signals, kills, full disks, damaged files, other options."""

import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from score_sde.cli import main
from sde.checkpoint.states import Checkpoints
from sde.files import remove_partial, whole
from sde.training.audit import audit
from tests.forks import FORK

# One worker, so that what they share, the server of tests.forks too, is started once.
pytestmark = pytest.mark.xdist_group("processes")

STEPS = 200
SMALL = ["--config", "points", f"--config.training.steps={STEPS}", "--config.training.batch_size=64",
         "--config.training.gradient_accumulation=2", "--config.training.checkpoint_every=20",
         "--config.training.log_every=5",
         "--config.training.sample_every=100000", "--config.model.network.width=16", "--config.model.network.layers=1",
         "--config.model.network.dropout=0.1", "--mode", "train"]  # fmt: skip


def call(capsys, folder, *options):
    status = main.main([*SMALL, "--workdir", str(folder), *options])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def straight_run(tmp_path_factory):
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight")
    assert main.main([*SMALL, "--workdir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def straight(straight_run):
    """Its weights."""
    return load_file(straight_run / "model.safetensors")


def equal(folder, weights):
    found = load_file(folder / "model.safetensors")
    return found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)


def command(output, *arguments):
    """The program in this process, what it says in a file."""
    torch.set_num_threads(1)
    with open(output, "w") as said, redirect_stdout(said), redirect_stderr(said):
        sys.exit(main.main([*arguments]))


def start(folder, *options, begin=SMALL):
    """Training in a process of its own, forked from one that has done the imports, which take longer than the runs."""
    output = folder.with_name(f"{folder.name}.txt")
    process = FORK.Process(target=command, args=(output, *begin, "--workdir", str(folder), *options))
    process.start()
    return process, output


def wait_for_step(folder, step, process, output):
    """Until the metrics show a step."""
    metrics = folder / "metrics.jsonl"
    while process.is_alive():
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        if any(f'"step": {n},' in line for line in lines[-3:] for n in range(step, STEPS + 1)):
            return
        time.sleep(0.005)
    raise AssertionError(output.read_text())


def newest(folder):
    return torch.load(Checkpoints(folder / "checkpoints", "denoiser").paths()[0], weights_only=True)["step"]


def test_signals_save_and_exit_well(tmp_path, straight):
    for number, step in ((signal.SIGTERM, 30), (signal.SIGINT, 70)):
        process, output = start(tmp_path)
        wait_for_step(tmp_path, step, process, output)
        os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode == 0, output.read_text()
        last = next(json.loads(line) for line in output.read_text().splitlines() if line.startswith("{"))
        assert last["ended"] == f"stopped by {number.name}"
        assert step <= last["steps"] < STEPS
        assert newest(tmp_path) == last["steps"]
    assert main.main([*SMALL, "--workdir", str(tmp_path)]) == 0
    assert equal(tmp_path, straight)


def test_a_signal_before_the_first_step(tmp_path, straight, capsys, monkeypatch):
    """While the data are looked at: there is nothing to save, and the same command begins."""

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return audit(*arguments)

    monkeypatch.setattr("score_sde.training.session.audit", interrupted)
    status, out, _ = call(capsys, tmp_path)
    assert status == 0
    assert f"stopped by SIGINT at step 0 of {STEPS}: the same command goes on from here" in out
    last = json.loads(out.splitlines()[-1])
    assert (last["ended"], last["steps"], last["loss"]) == ("stopped by SIGINT", 0, None)
    assert not (tmp_path / "checkpoints").exists()
    monkeypatch.undo()
    assert call(capsys, tmp_path)[0] == 0
    assert equal(tmp_path, straight)


def test_killed_at_any_moment(tmp_path, straight, capsys):
    """Saving takes most of the time here, so that some kills fall into it."""
    often, chance = "--config.training.checkpoint_every=1", random.Random(0)
    for step in (10, 40, 70):
        process, output = start(tmp_path, often)
        wait_for_step(tmp_path, step, process, output)
        time.sleep(0.1 * chance.random())
        logged = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"]
        process.kill()
        process.join()
        # The state of a step is written after its line in the metrics.
        assert newest(tmp_path) >= logged - 1
    status, out, _ = call(capsys, tmp_path, often)
    assert status == 0
    assert "continuing" in out
    assert equal(tmp_path, straight)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == sorted(set(steps)), "steps that were done again are in the metrics once"
    assert not list(tmp_path.rglob(".*")), "what a killed process left half written is gone"


def test_a_student_killed_in_the_middle_of_a_stage(tmp_path, straight_run):
    """Its teacher is then the student of the stage before, which is in the training state alone."""
    distill = ["--mode", "distill", "--teacher", str(straight_run), "--method", "progressive",
               "--config.distillation.method.first_steps=2", "--config.training.steps=100"]  # fmt: skip
    assert main.main([*distill, "--workdir", str(tmp_path / "whole")]) == 0
    process, output = start(tmp_path / "killed", begin=distill)
    wait_for_step(tmp_path / "killed", 65, process, output)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL, output.read_text()
    assert 50 < newest(tmp_path / "killed") < 100
    assert main.main([*distill, "--workdir", str(tmp_path / "killed")]) == 0
    assert equal(tmp_path / "killed", load_file(tmp_path / "whole" / "model.safetensors"))


def test_half_written_files_are_removed(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead, living = ended.pid, os.getppid()
    names = (f".metrics.jsonl.{dead}", f"checkpoints/.classifier-00000100.pt.{dead}-0123abcd",
             "checkpoints/.denoiser-00000100.0", f".model.safetensors.{os.getpid()}",
             f"ema/.0.99.safetensors.{dead}", f"classifier_ema/.0.99.safetensors.{dead}")  # fmt: skip
    mine = (f".notes.{dead}", ".config.json.old", "ema/0.99.safetensors", f".model.safetensors.{living}",
            f"checkpoints/.denoiser-00000200.pt.{living}-0123abcd")  # fmt: skip
    for name in (*names, *mine):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with whole(tmp_path / "curves.png") as file:
        remove_partial(tmp_path)
        assert Path(file.name).exists(), "what this process is writing in another thread"
    mine = (*mine, "curves.png")
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {*mine}


def test_full_disk(tmp_path, straight, capsys, monkeypatch):
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if 6 <= len(calls) < 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    status, out, err = call(capsys, tmp_path)
    assert status == 0
    assert "was not saved ([Errno 28] No space left on device); what was saved before is untouched" in out + err
    assert equal(tmp_path, straight)
    for what, good in (("metrics.jsonl", 0), ("config.json", 1), (f"step {STEPS + 1}", 2)):
        left = iter([real] * good)
        monkeypatch.setattr(os, "fsync", lambda descriptor, left=left: next(left, full_always)(descriptor))
        status, _, err = call(capsys, tmp_path, f"--config.training.steps={STEPS + 1}")
        assert status == 2
        assert (
            f"error: {what} was not saved ([Errno 28] No space left on device); what was saved before is untouched: "
            f"make room in {tmp_path} and repeat the command"
        ) in err
        assert equal(tmp_path, straight)
    assert not list(tmp_path.rglob(".*"))


def full_always(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")


def halved(content):
    return content[: len(content) // 2]


def one_bit_turned(content):
    # Within the largest record, since files have gaps in which nothing would be damaged.
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
        start = content.find(archive.read(largest), largest.header_offset)
    at = start + largest.file_size // 2
    return content[:at] + bytes([content[at] ^ 64]) + content[at + 1 :]


@pytest.mark.parametrize("damage", [halved, one_bit_turned])
def test_damaged_newest_checkpoint(tmp_path, straight_run, capsys, damage):
    shutil.copytree(straight_run, tmp_path, dirs_exist_ok=True)
    state = Checkpoints(tmp_path / "checkpoints", "denoiser").paths()[0]
    state.write_bytes(damage(state.read_bytes()))
    status, out, _ = call(capsys, tmp_path)
    assert status == 0
    assert f"{state} is damaged" in out
    assert f"at step {STEPS - 20}" in out


def test_metrics_on_a_full_disk(tmp_path, straight, capsys, monkeypatch):
    def full(self, line):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("score_sde.training.log.Metrics.record", full)
    status, out, err = call(capsys, tmp_path)
    assert status == 0
    assert "a line of metrics.jsonl was not saved" in out + err
    assert equal(tmp_path, straight)


def test_nothing_left_to_go_on_from(tmp_path, capsys):
    assert call(capsys, tmp_path, "--config.training.steps=40")[0] == 0
    model = (tmp_path / "model.safetensors").read_bytes()
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(b"cut short")
    status, _, err = call(capsys, tmp_path)
    assert status == 2
    assert "none is left to go on from; restore one, or train into a new --workdir" in err
    assert (tmp_path / "model.safetensors").read_bytes() == model


def test_what_is_refused_first_can_be_mended_in_the_same_folder(tmp_path, capsys):
    status, _, err = call(capsys, tmp_path, "--config.training.batch_size=30000")
    assert status == 2
    assert "larger than the 22500 training items" in err
    assert call(capsys, tmp_path, "--config.training.steps=1", "--config.model.network.width=8")[0] == 0


def test_other_data_are_refused(tmp_path, capsys):
    """The path may change; what is stored of the data may not."""
    for shift in (0.0, 5.0):
        np.save(tmp_path / f"x{shift:g}.npy", shift + np.random.default_rng(0).normal(size=(200, 2)))
    run = tmp_path / "run"
    assert call(capsys, run, f"--config.data.root={tmp_path}/x0.npy", "--config.training.steps=1")[0] == 0
    status, _, err = call(capsys, run, f"--config.data.root={tmp_path}/x5.npy", "--config.training.steps=2")
    assert status == 2
    assert "denoiser.transform.shift" in err


def test_another_batch_size_goes_on(tmp_path, capsys):
    """The learning rate still falls to its end with the last step."""
    assert call(capsys, tmp_path, "--config.training.steps=100")[0] == 0
    options = "--config.training.batch_size=32", "--config.training.steps=200"
    assert call(capsys, tmp_path, *options)[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if "lr" in line and line["step"] > 100]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.1 * 1e-3
    assert 0 < rates[-1] < 0.01 * rates[0]


@pytest.mark.parametrize(("option", "words"), [
    ("--config.model.network.width=8", "config.model.network.width: 16, now 8"),
    ("--config.sde.beta_max=10.0", "config.sde.beta_max: 20.0, now 10.0"),
    ("--config.sde.name=ve", "config.sde.name: 'vp', now 've'"),
])  # fmt: skip
def test_other_models_are_refused(tmp_path, capsys, option, words):
    assert call(capsys, tmp_path, "--config.training.steps=1")[0] == 0
    before = (tmp_path / "config.json").read_bytes()
    status, _, err = call(capsys, tmp_path, option)
    assert status == 2
    assert words in err
    assert (tmp_path / "config.json").read_bytes() == before


def test_divergence_stops_the_run(tmp_path, capsys):
    assert call(capsys, tmp_path, "--config.training.steps=40")[0] == 0
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.suffix in (".pt", ".safetensors")}
    assert len(files) == 3
    often = [f"--config.training.{key}_every=5" for key in ("checkpoint", "sample")]
    status, out, err = call(capsys, tmp_path, "--config.training.lr=1e30", *often)
    assert status == 2
    assert "warning: no samples at step 45" in out + err
    assert "10 of the last 100 steps were skipped" in err
    assert "sigma / alpha" in err
    assert "network." in err
    assert all(path.read_bytes() == content for path, content in files.items())
