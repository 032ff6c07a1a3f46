"""What can be refused before the work is: outputs that cannot be written, suffixes that nobody writes, full disks, and
packages that are not installed."""

import shutil
import sys
from collections import namedtuple

import numpy as np
import pytest
import torch

from score_sde.cli.modes import MODES
from score_sde.run.outputs import WRITTEN, amount, check_out, without_suffix
from sde.data.cache import cached
from tests.score_sde.runs import call

WRITING = [name for name, mode in MODES.items() if "out" in mode.flags and mode.suffixes]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def no_work(monkeypatch):
    """Modes that do nothing but fail, whose flags are the same."""

    def refuse(self):
        raise AssertionError("the work began")

    monkeypatch.setattr("score_sde.run.folder.Run.data", refuse)
    monkeypatch.setattr("score_sde.run.folder.Run.model", refuse)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("mode", WRITING)
def test_outputs_are_tried_before_the_work(trained, capsys, tmp_path, mode):
    before = sorted(trained.rglob("*"))
    suffixes = MODES[mode].suffixes
    kinds = " and ".join(filter(None, [", ".join(suffixes[:-1]), suffixes[-1]]))
    (tmp_path / "file").write_text("")
    (tmp_path / f"taken{suffixes[0]}").mkdir()
    wrong = {
        tmp_path / "file" / "x": f"no file can be written in {tmp_path / 'file'} (",
        "/proc/none/x": "no file can be written in /proc/none (",
        tmp_path: f"{tmp_path} is a folder, or nothing: name a file, as in {tmp_path / mode}",
        f"{tmp_path}/new/": "is a folder, or nothing",
        "": "--out is empty: give a value, or leave it out",
        tmp_path / "taken": f"{tmp_path / 'taken'}{suffixes[0]} is a folder, and a file of this name",
        f"{tmp_path}/x.toml": f"/x.toml: --mode {mode} writes {kinds}; name it",
        tmp_path / "x.PNG": f"--mode {mode} writes ",
    }
    for out, words in wrong.items():
        status, result, error = call(capsys, "--mode", mode, "--workdir", trained, "--out", out)
        assert (status, result) == (2, None)
        assert words in error
    assert before == sorted(trained.rglob("*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", f"taken{suffixes[0]}"]


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("mode", ["train", "train_classifier", "ema", "evaluate", "compare", "sample", "edit"])
def test_a_run_folder_that_cannot_be_written(trained, capsys, monkeypatch, mode):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    status, _, error = call(capsys, "--mode", mode, "--workdir", trained)
    assert (status, error) == (
        2, f"error: --workdir={trained}: no file can be written in {trained} (Permission denied); name another place\n"
    )  # fmt: skip


def test_a_suffix_that_is_written_may_be_named(tmp_path):
    for mode in WRITING:
        for suffix in ("", *MODES[mode].suffixes):
            check_out(str(tmp_path / f"v1.5{suffix}"), MODES[mode].suffixes, mode)
            assert suffix in ("", *WRITTEN)
            assert without_suffix(str(tmp_path / f"v1.5{suffix}")) == tmp_path / "v1.5"
    assert not list(tmp_path.iterdir())


def test_what_is_named_is_written(trained, capsys, tmp_path):
    few = ["--workdir", trained, "--num_samples", 2, "--steps", 2]
    for out in ("new/a.npz", "new/b.png", "v0.1", "c"):
        assert call(capsys, "--mode", "sample", *few, "--out", tmp_path / out)[0] == 0
    names = {"new/a", "new/b", "v0.1", "c"}
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {name + suffix for name in names for suffix in (".npz", ".png")}


@pytest.mark.parametrize("mode", ["sample", "evaluate", "encode", "edit", "restore", "train"])
def test_a_disk_without_room_is_noticed_first(trained, capsys, monkeypatch, mode):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**9, 10**9 - 6 * 10**7, 6 * 10**7))
    monkeypatch.setattr("score_sde.run.sampling.generate", lambda *_, **__: 1 / 0)
    steps = ["--config.training.steps=70"] if mode == "train" else []
    status, _, error = call(capsys, "--mode", mode, "--workdir", trained, *steps)
    assert status == 2
    assert "whose disk has 60 MB left: make room, ask for less, or name another place" in error


def test_the_room_that_is_asked_for(trained, capsys, monkeypatch):
    """1000 points in the plane are 8 KB, beside what is kept free."""
    for free, status in ((2**26 + 8000, 0), (2**26 + 7999, 2)):
        monkeypatch.setattr(shutil, "disk_usage", lambda place, free=free: Usage(10**12, 0, free))
        run = ["--mode", "sample", "--workdir", trained, "--num_samples", 1000, "--steps", 1, "--labels", "none"]
        assert call(capsys, *run)[0] == status
    assert [amount(size) for size in (5, 8000, 6e7, 2.5e12)] == ["5 B", "8 KB", "60 MB", "2.5 TB"]


def test_a_cache_without_room_decodes_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**9, 0, 23))
    with pytest.raises(ValueError, match=r"\(it takes 2.4e-08 GB, and 2.3e-08 GB are free\)"):
        cached(iter([]), (2, 3, 2, 2), "stamp", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**9, 0, 24))
    items = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    np.testing.assert_array_equal(cached(iter([items]), (2, 3, 2, 2), "stamp", tmp_path), items)


@pytest.mark.usefixtures("no_work")
def test_a_package_that_is_not_installed_is_missed_first(trained, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for mode in ("train", "train_classifier"):
        status, _, error = call(capsys, "--mode", mode, "--workdir", trained, "--config.training.tensorboard=True")
        assert status == 2
        assert "config.training.tensorboard = True needs TensorBoard, which is not installed: pip install" in error
