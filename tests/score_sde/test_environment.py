"""What lies around a command: variables, homes, encodings, names of folders, other people's packages."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from score_sde.config.config import read_run_config
from score_sde.config.program import program, quoted
from score_sde.training.log import Metrics
from sde.checkpoint.models import load_model
from sde.data.cache import cached
from sde.data.tables import read_table
from sde.files import expanded, read_json, write_text
from tests.score_sde.runs import call, untrained

ROOT = Path(__file__).resolve().parents[2]
FEW = ["--num_samples", "2", "--steps", "2"]


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """A run whose folder has a name with a blank, and a byte that is no UTF-8."""
    folder = tmp_path_factory.mktemp("runs") / os.fsdecode(b"caf\xe9 x")
    return untrained(folder, np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32))


def sampled(points, tmp_path, start, changes):
    """Samples by a command in a process of its own."""
    out = tmp_path / os.fsdecode(b"s\xe9")
    process = subprocess.run(
        [sys.executable, *start, "--mode", "sample", "--workdir", points.folder, *FEW, "--out", out],
        capture_output=True, env=os.environ | changes, cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    last = json.loads(process.stdout.splitlines()[-1])
    assert Path(last["numbers"]) == Path(f"{out}.npz")
    assert Path(last["numbers"]).exists()
    assert b"matplotlib" not in process.stderr


def test_a_terminal_that_knows_ascii_alone(points, tmp_path):
    changes = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "MPLBACKEND": "module://not.there"}
    sampled(points, tmp_path, [ROOT / "main.py"], changes)


OPTIMIZED = """
import os, runpy, sys
from importlib.machinery import PathFinder, SourceFileLoader

class Optimized(SourceFileLoader):
    def get_code(self, name):
        path = self.get_filename(name)
        return compile(self.get_data(path), path, "exec", dont_inherit=True, optimize=2)

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        if spec and name.partition(".")[0] in ("sde", "samplers", "score_sde") and spec.has_location:
            spec.loader = Optimized(name, spec.origin)
        return spec

sys.path[0] = os.getcwd()
sys.meta_path.insert(0, Finder)
import score_sde
assert score_sde.__doc__ is None
sys.argv[0] = score_sde.__path__[0] + "/__main__.py"
runpy.run_module("score_sde", run_name="__main__")
"""
"""``python -OO -m score_sde`` for our own packages: to compile torch's for it takes longer than all the rest."""


def test_no_docstrings_and_packages_of_others_in_the_working_folder(points, tmp_path):
    for name in ("sde", "samplers", "metrics", "configs", "commands", "main"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('another')\n")
    changes = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "HOME": "/proc/none", "MPLBACKEND": "inline",
               "COLUMNS": "1", "TERM": "dumb"}  # fmt: skip
    sampled(points, tmp_path, ["-c", OPTIMIZED], changes)


def test_no_assertion_does_work():
    for path in [path for package in ("sde", "samplers", "score_sde") for path in (ROOT / package).rglob("*.py")]:
        assert not [line for line in path.read_text().splitlines() if line.strip().startswith("assert ")], path


def test_models_in_any_folder(points):
    assert load_model(points.model_file).event_shape == (2,)


def test_paths_are_written_out(monkeypatch, tmp_path, capsys, points):
    (tmp_path / "data.csv").write_text("\n".join(f"{i * i % 11},{i * i % 7}" for i in range(40)))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", "data")
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert expanded("~/${WHERE}.csv") == expanded("$HOME/$WHERE.csv") == str(tmp_path / "data.csv")
    small = ["--config.training.steps=1", "--config.training.batch_size=4", "--config.training.sample_every=9"]
    train = ["--mode", "train", "--config", "points", *small]
    assert call(capsys, *train, "--workdir=~/run", "--config.data.root=~/data.csv")[0] == 0
    assert call(capsys, "--mode", "sample", *FEW, "--workdir=$HOME/run", "--out=~/$WHERE-drawn")[0] == 0
    assert (tmp_path / "data-drawn.npz").exists()
    assert not (tmp_path / "~").exists()
    status, _, error = call(capsys, "--mode", "sample", "--workdir=$NOWHERE/run")
    assert (status, error) == (2, "error: --workdir: $NOWHERE/run: the variable NOWHERE is not set\n")
    (tmp_path / "$NOWHERE").mkdir()
    assert expanded("$NOWHERE") == "$NOWHERE"
    for flag in ("workdir", "config", "weights", "out", "labels", "device"):
        mode = "train" if flag == "config" else "sample"
        status, _, error = call(capsys, "--mode", mode, "--workdir", "run", f"--{flag}=")
        assert (status, error) == (2, f"error: --{flag} is empty: give a value, or leave it out\n")


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("change", [
    lambda text: BOM + text, lambda text: text.replace(b"\n", b"\r\n"), lambda text: BOM + text.replace(b"\n", b"\r\n")
], ids=["bom", "crlf", "both"])  # fmt: skip
def test_files_that_an_editor_saved(points, tmp_path, change):
    text = (points.folder / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(change(text))
    assert read_run_config(tmp_path) == read_run_config(points.folder)
    (tmp_path / "table.csv").write_bytes(change(b"x,label\n1.5,0\n2.5,1\n"))
    table = read_table(tmp_path / "table.csv", ("label",))
    assert (table.values.tolist(), table.labels.tolist()) == ([[1.5], [2.5]], [0, 1])
    (tmp_path / "metrics.jsonl").write_bytes(change(b'{"step": 1}\n{"step": 2}\n'))
    assert Metrics(tmp_path / "metrics.jsonl").read() == [{"step": 1}, {"step": 2}]


def test_other_encodings_are_named(tmp_path):
    (tmp_path / "config.json").write_bytes('{"data": {}}'.encode("utf-16"))
    (tmp_path / "table.csv").write_bytes("1,2\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"config.json is damaged \(it is no text in UTF-8: save it as that"):
        read_run_config(tmp_path)
    assert read_table(tmp_path / "table.csv", ()).values.tolist() == [[1.0, 2.0]], "which its first bytes say"


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_files_are_as_open_as_the_umask_says(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a" / "page.html", os.fsdecode(b"caf\xe9"))
        cached(iter([]), (0, 3), "stamp", tmp_path / "b")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}
    assert (tmp_path / "a" / "page.html").read_text() == r"caf\udce9"


NAMES = [b"my runs", b"it's", b"caf\xc3\xa9", b"caf\xe9", b"a$b", b"*", b"a\nb", b"a\\b\xff'c", b"-x", b"~"]


@pytest.mark.parametrize("name", NAMES)
def test_commands_can_be_pasted(name):
    """What bash makes of a word is the name, byte by byte."""
    word = quoted(os.fsdecode(name))
    assert word.encode("utf-8").decode().isprintable()
    shown = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert shown == name


def test_every_command_that_is_suggested_quotes_its_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = call(capsys, "--mode", "sample", "--workdir", "my runs")[2]
    assert shlex.split(error.split("`")[1])[-2:] == ["--workdir", "my runs"]
    words_of = {
        "/a b/main.py": "python '/a b/main.py'",
        "/x/score_sde/__main__.py": "python -m score_sde",
        "/bin/score-sde": "score-sde",
        "main.py": "python main.py",
        "": "python main.py",
    }
    for called, words in words_of.items():
        monkeypatch.setattr("sys.argv", [called])
        assert program() == words


def test_json_is_read_whatever_its_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(BOM + '{"é": 1}\r\n'.encode())
    assert read_json(tmp_path / "a.json") == {"é": 1}
