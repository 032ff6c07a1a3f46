"""What is said of a training's length before it begins."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from score_sde.config.config import config_path, read_config, resolve
from score_sde.training.estimate import LONG, outlook
from sde.networks import NETWORKS

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


def test_small_pictures_have_a_config_of_their_own():
    config = resolve(read_config(config_path("images")), ["--config.data.root=x"])
    assert config.data.arguments()["resolution"] == 32
    options = {key: value for key, value in config.model.network.to_dict().items() if key != "name"}
    network = NETWORKS[config.model.network.name]((3, 32, 32), None, **options)
    assert sum(p.numel() for p in network.parameters()) < 2_000_000


def test_the_first_line_comes_before_what_takes_long():
    process = subprocess.Popen([sys.executable, ROOT / "main.py", "--mode", "train", "--config", "none"], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    out, error = process.communicate()
    assert out == "loading PyTorch ...\n"
    assert "--config=none does not exist" in error
