"""What is said of a training's length before it begins."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from score_sde.config.config import config_path, read_config, resolve
from score_sde.training import estimate
from score_sde.training.estimate import LONG, StepTime, outlook, time_of_step, waiting
from sde.networks import NETWORKS
from sde.training.options import TrainingOptions
from tests.oracles.machine import Machine
from tests.sde import small_training

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_training_has_no_advice():
    config = resolve(read_config(config_path("digits")), [])
    assert outlook(0.25, 100, config, "training", "cpu") == "a step takes 0.25 s: 100 steps are about 25 s"
    assert "; " not in outlook(1.0, int(LONG) - 1, config, "training", "cpu")


@pytest.mark.parametrize("section", ["training", "classifier"])
def test_a_long_one_names_keys_that_there_are(section):
    config = resolve(read_config(config_path("cifar10")), [])
    text = outlook(60.0, 400_000, config, section, "cpu")
    assert text.startswith("a step takes 60 s: 400000 steps are about 277 d 18 h; less of these makes it shorter: ")
    values = config.to_dict()
    for path, now in re.findall(r"--config\.([\w.]+) \(now (\w+)", text):
        found = values
        for key in path.split("."):
            found = found[key]
        assert str(found or "as") == now
    assert "--config images" in text
    assert text.endswith("a GPU is many times faster")
    assert "GPU" not in outlook(60.0, 400_000, config, section, "cuda")


@pytest.mark.parametrize(("threads", "seconds"), [(0, 5.0), (1, 3.0), (4, 3.0)])
def test_threads_read_while_the_network_runs(threads, seconds):
    assert StepTime(passes=2.0, reading=3.0, threads=threads).seconds == seconds


class Reader:
    """Stands for a trainer whose batches take so long to read, and its passes so long."""

    def __init__(self, reading, passes, workers, parts, clock):
        self.step, self.device = 2, torch.device("cpu")
        self.options = TrainingOptions(batch_size=8, gradient_accumulation=parts)
        self.batches, self.dry_run = self, lambda batch: clock.work("pass", passes)
        self.read = lambda number: clock.work(number, reading)
        self.workers, self.resident, self.size = workers, False, 8 // parts

    def place(self, part):
        return part

    def encoded(self, copied):
        return copied


@pytest.mark.parametrize("parts", [1, 2])
def test_passes_and_reading_are_measured_alone(monkeypatch, parts):
    clock = Machine({})
    monkeypatch.setattr(estimate.time, "perf_counter", clock)
    monkeypatch.setattr(estimate.os, "cpu_count", lambda: 2)
    found = time_of_step(Reader(0.3, 0.2, 4, parts, clock))
    assert found == StepTime(pytest.approx(0.2 * parts), pytest.approx(0.15 * parts), 2)
    assert clock.calls == [2 * parts] * 2 + ["pass"] * 2


def test_who_waits_is_told():
    config = resolve(read_config(config_path("images")), ["--config.data.root=x"])
    slow = Reader(0.3, 0.1, 4, 1, None)
    assert waiting(StepTime(0.1, 0.2, 4), slow, config) == (
        "the network waits for the data: 4 threads read 40 items/s, and it takes 80; what may help: more "
        "--config.data.workers (now 4), or --config.data.cache=FOLDER, which decodes images once"
    )
    assert waiting(StepTime(0.2, 0.1, 4), slow, config) is None
    digits = resolve(read_config(config_path("digits")), ["--config.data.workers=0"])
    assert waiting(StepTime(0.1, 0.2, 0), slow, digits).endswith("what may help: more --config.data.workers (now 0)")
    # What is in memory is not read ahead, and no key would change it.
    held = small_training.trainer()
    assert waiting(StepTime(0.1, 0.2, 0), held, digits) is None
    assert time_of_step(held).threads == 0


def test_small_pictures_have_a_config_of_their_own():
    config = resolve(read_config(config_path("images")), ["--config.data.root=x"])
    assert config.data.arguments()["resolution"] == 32
    options = {key: value for key, value in config.model.network.to_dict().items() if key != "name"}
    network = NETWORKS[config.model.network.name]((3, 32, 32), None, **options)
    assert sum(p.numel() for p in network.parameters()) < 2_000_000


def test_the_first_line_comes_before_what_takes_long():
    """Whoever reads it need not wait for the rest."""
    process = subprocess.Popen([sys.executable, ROOT / "main.py", "--mode", "train", "--config", "none"], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    first = process.stdout.readline()
    process.kill()
    process.communicate()
    assert first == "loading PyTorch ...\n"
