"""One run, one writer: the second is refused in a sentence, readers are not, and a killed one leaves nothing."""

import errno
import json
import multiprocessing
import os
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from score_sde.cli.modes import MODES
from score_sde.run.lock import one_writer
from tests.score_sde.runs import call


@pytest.fixture
def holder():
    """A function that has another process, forked from this one, hold a lock until it is killed."""
    started, fork = [], multiprocessing.get_context("fork")

    def held(path, pipe):
        with one_writer(path, "--mode train", "wait"):
            pipe.send("held")
            signal.pause()

    def hold(path):
        here, there = fork.Pipe()
        process = fork.Process(target=held, args=(path, there))
        process.start()
        started.append(process)
        assert here.poll(60)
        assert here.recv() == "held"
        return process

    yield hold
    for process in started:
        process.kill()
        process.join()


WRITERS = ("train", "train_classifier", "train_autoencoder", "ema")


def test_every_writer_of_a_run_is_known():
    assert {name for name, mode in MODES.items() if mode.writes} == {*WRITERS, "distill", "import"}
    assert {name for name, mode in MODES.items() if mode.training} <= {*WRITERS, "distill"}


@pytest.mark.parametrize("mode", WRITERS)
def test_the_second_writer_is_refused(trained, capsys, holder, mode):
    first = holder(trained / ".run.lock")
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    status, result, error = call(capsys, "--mode", mode, "--workdir", trained)
    assert (status, result) == (2, None)
    assert error.startswith(
        f"error: {trained} is being written by process {first.pid} on {socket.gethostname()} (--mode train, since 2"
    )
    assert error.endswith("): wait for its end, or name another --workdir\n")
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}


def test_readers_are_untouched_and_a_killed_writer_is_none(trained, capsys, holder):
    first = holder(trained / ".run.lock")
    few = ["--num_samples", 2, "--steps", 2]
    for sampler in ("heun", "auto"):
        assert call(capsys, "--mode", "sample", "--workdir", trained, *few, "--sampler", sampler)[0] == 0
    few = ["--num_samples", 60, "--metrics", "frechet"]
    for mode in ("evaluate", "evaluate", "compare"):
        own = ["--samplers", "ddim", "--nfe", 2] if mode == "compare" else ["--steps", 2]
        assert call(capsys, "--mode", mode, "--workdir", trained, *few, *own)[0] == 0
    records = {path.relative_to(trained).as_posix() for path in trained.glob("[ce]*/*") if path.suffix == ".json"}
    assert records >= {f"evaluations/00000{n}-heun.json" for n in (1, 2)} | {"compare/000001-compare.json"}
    first.kill()
    first.join()
    assert (trained / ".run.lock").exists()
    assert call(capsys, "--mode", "train", "--workdir", trained)[0] == 0
    assert not (trained / ".run.lock").exists()


def test_a_folder_that_stays_empty_goes_again(tmp_path):
    (tmp_path / "mine").mkdir()
    for folder, left in (("mine/run", ["mine"]), ("new/run", ["mine"])):
        with one_writer(tmp_path / folder / ".run.lock", "a test", "wait"):
            assert (tmp_path / folder).is_dir()
        assert [path.name for path in tmp_path.iterdir()] == left
    assert not list((tmp_path / "mine").iterdir())


def test_one_at_a_time_of_many(tmp_path):
    """Each adds one to a number that it read; whoever comes between makes another lose its own."""
    number = tmp_path / "number"
    number.write_text("0")

    def add(_):
        with one_writer(tmp_path / ".lock", "a sum", "wait", wait=True):
            number.write_text(str(int(number.read_text()) + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(200)))
    assert number.read_text() == "200"


def test_without_locks_a_living_process_of_this_machine_is_found(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("sde.locks.fcntl.flock", none)
    path = tmp_path / ".lock"
    ended = subprocess.Popen(["true"])
    ended.wait()
    for process, host in ((ended.pid, socket.gethostname()), (os.getppid(), "elsewhere")):
        path.write_text(json.dumps({"process": process, "host": host, "work": "--mode train", "since": "today"}))
        with one_writer(path, "a test", "wait"):
            assert f"{tmp_path} is on a file system without locks: see that no other" in capsys.readouterr().out
    record = {"process": os.getppid(), "host": socket.gethostname(), "work": "--mode train", "since": "today"}
    path.write_text(json.dumps(record))
    with (
        pytest.raises(ValueError, match=rf"process {os.getppid()} on .* \(--mode train, since today\): wait"),
        one_writer(path, "a test", "wait"),
    ):
        raise AssertionError("it was taken")
