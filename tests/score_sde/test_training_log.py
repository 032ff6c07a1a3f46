"""Metrics: valid JSON whatever the numbers, lines that survive a crash, TensorBoard's events."""

import json
import math
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from score_sde.training.log import Metrics

LINES = [{"step": 10, "loss": 0.5, "skipped": 0},
         {"step": 20, "held_out_loss": 0.25, "by_noise": [{"noise_level": 0.1, "ema": 1.5}]},
         {"step": 20, "loss": 0.25}, {"step": 30, "nearest": {"median": 0.125, "ratio": None}}]  # fmt: skip


def recorded(folder, **options):
    metrics = Metrics(folder / "run" / "metrics.jsonl", **options)
    for line in LINES:
        metrics.record(line)
    return metrics


def refuse(name):
    raise AssertionError(f"{name} is not JSON")


def test_lines_come_back(tmp_path):
    metrics = Metrics(tmp_path / "run" / "metrics.jsonl")
    assert metrics.read() == []
    metrics.truncate(0)
    assert not metrics.path.exists()
    assert recorded(tmp_path).read() == metrics.read() == LINES


def test_numbers_that_are_not_finite_are_null(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl")
    metrics.record({"step": 1, "loss": math.nan, "by_noise": [{"ema": math.inf, "raw": 2.0}], "pair": (1.0, -math.inf)})
    expected = {"step": 1, "loss": None, "by_noise": [{"ema": None, "raw": 2.0}], "pair": [1.0, None]}
    assert json.loads(metrics.path.read_text(), parse_constant=refuse) == expected
    metrics.path.write_text('{"step": 1, "loss": NaN}\n')
    assert metrics.read() == [{"step": 1, "loss": None}]


def test_going_on_from_a_step(tmp_path):
    recorded(tmp_path).truncate(20)
    metrics = Metrics(tmp_path / "run" / "metrics.jsonl")
    assert metrics.read() == LINES[:3]
    metrics.record({"step": 21})
    assert metrics.read() == [*LINES[:3], {"step": 21}]
    metrics.truncate(0)
    assert metrics.read() == []


def test_a_crash_at_any_byte(tmp_path):
    metrics, lines = Metrics(tmp_path / "metrics.jsonl"), [{"step": 10, "loss": 0.5}, {"step": 20}]
    for line in lines:
        metrics.record(line)
    content = metrics.path.read_bytes()
    for length in range(len(content) + 1):
        metrics.path.write_bytes(content[:length])
        whole = lines[: content[:length].count(b"\n")]
        assert metrics.read() == whole
        metrics.truncate(100)
        metrics.record({"step": 40})
        assert metrics.read() == [*whole, {"step": 40}]


@pytest.mark.parametrize(
    "damage", [b"\x00\x00\x00\n", b"\xff\xfe\n", b"[1]\n", b'{"loss": 1}\n', b'{"step": 1\n', b"\n"]
)
def test_damaged_lines_are_left_out(tmp_path, damage):
    metrics = recorded(tmp_path)
    first, rest = metrics.path.read_bytes().split(b"\n", 1)
    metrics.path.write_bytes(first + b"\n" + damage + rest)
    assert metrics.read() == LINES
    metrics.truncate(100)
    assert metrics.path.read_bytes() == first + b"\n" + rest


def test_a_crash_while_truncating(tmp_path, monkeypatch):
    metrics = recorded(tmp_path)

    def crash(*paths):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", crash)
        with pytest.raises(OSError, match="no space"):
            metrics.truncate(10)
    assert metrics.read() == LINES
    assert [path.name for path in metrics.path.parent.iterdir()] == ["metrics.jsonl"]


def events(folder):
    found = EventAccumulator(str(folder / "run" / "tensorboard" / "metrics")).Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard(tmp_path):
    first = recorded(tmp_path, tensorboard=True)
    before = {"loss": [(10, 0.5), (20, 0.25)], "skipped": [(10, 0)], "held_out_loss": [(20, 0.25)],
              "by_noise/0/noise_level": [(20, pytest.approx(0.1))], "by_noise/0/ema": [(20, 1.5)],
              "nearest/median": [(30, 0.125)]}  # fmt: skip
    assert events(tmp_path) == before, "at once, before anything is closed"
    first.close()
    second = Metrics(first.path, tensorboard=True)
    second.truncate(10)
    second.record({"step": 15, "loss": 0.375})
    second.close()
    assert events(tmp_path)["loss"] == [(10, 0.5), (15, 0.375)], "later events of the interrupted run are purged"
    assert recorded(tmp_path / "plain").path.parent.joinpath("tensorboard").exists() is False


def test_tensorboard_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ValueError, match=r"config.training.tensorboard = True .* pip install 'score-sde\[tensorboard\]'"
    ):
        Metrics(tmp_path / "metrics.jsonl", tensorboard=True)
    Metrics(tmp_path / "metrics.jsonl").record({"step": 1})
