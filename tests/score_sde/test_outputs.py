"""Default names of files: what a command sets tells its files from those of another command."""

from pathlib import Path

import numpy as np
import pytest
import torch

from samplers import NOISES
from score_sde.cli.modes import MODES
from score_sde.run.folder import Run
from score_sde.run.outputs import LONGEST, settings_of, stem
from tests.score_sde.runs import call, untrained

OWN = {"sampler": "heun", "weights": "model.safetensors"}


def name(given, overrides=(), mode="sample", **options):
    run = Run(Path("runs"), None, None, settings=settings_of(given, [*overrides], OWN | MODES[mode].defaults))
    return stem(run, None, mode, 0, **options).name


def test_what_is_at_its_default_is_no_part_of_a_name():
    given = {"num_samples": 64, "noise": NOISES[0], "guidance_scale": (1.0,), "weights": "model.safetensors",
             "sampler": "heun", "labels": ""}  # fmt: skip
    unnamed = {"mode": "sample", "workdir": "w", "device": "cpu", "seed": 3, "batch_size": 1, "out": "o"}
    assert name(given | unnamed) == "sample-seed0"
    assert name({"guidance_scale": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)}, mode="guidance_sweep") == (
        "guidance_sweep-seed0"
    )
    assert name({"sampler": "ancestral"}, mode="restore") == "restore-seed0"
    assert name({"sampler": "heun"}, mode="restore") == "restore-sampler=heun-seed0", "which is not its default"


def test_the_rest_is():
    assert name({"labels": "0,1", "guidance_scale": (1.0, -2.5)}) == "sample-labels=0,1-guidance_scale=1,-2.5-seed0"
    assert name({"rtol": 1e-7}, mode="encode") == "encode-rtol=1e-07-seed0"
    assert name({"grid": "karras:5", "steps": 9}, told=["steps"]) == "sample-grid=karras-5-seed0"
    overrides = ["--config.sampler.name=ddim", "--config.sampler.eta=0.5", "--config.data.root=/x/digits"]
    assert name({}, overrides, told=["sampler"]).startswith("sample-eta=0.5-root=digits-")


def test_one_name_in_two_folders():
    one, other = (name({"mask": f"{folder}/mine.npy"}, mode="restore") for folder in ("a", "/b/c"))
    assert one.startswith("restore-mask=mine.npy-")
    assert other.startswith("restore-mask=mine.npy-")
    assert one != other


def test_long_names_end_in_a_digest():
    one, other = (name({"labels": ",".join(["0"] * n)}) for n in (150, 151))
    assert len(one) == len(other) == LONGEST
    assert one != other


def test_out_has_no_settings():
    run = Run(Path("runs"), None, None, settings={"labels": "1"})
    assert [stem(run, f"a/b{suffix}", "head", 0) for suffix in (".png", ".npz", ".json")] == [Path("a/b")] * 3
    assert stem(run, "a/b.c", "head", 0) == Path("a/b.c")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Continuous images (3, 8, 8) in two classes, with two masks of one name and weights of another name."""
    x = np.random.default_rng(0).normal(2, 5, (40, 3, 8, 8)).astype(np.float32)
    run = untrained(tmp_path_factory.mktemp("runs") / "photos", x, np.arange(40) % 2)
    for i in range(2):
        (run.folder / f"masks{i}").mkdir()
        np.save(run.folder / f"masks{i}" / "mine.npy", torch.arange(64).view(8, 8) % 3 > i)
    (run.folder / "other.safetensors").write_bytes(run.model_file.read_bytes())
    return run


LOOSE = ["--rtol", 0.1, "--atol", 0.1]
COMMANDS = {
    "sample": ["", "--config.sampler.churn=0.5", "--config.sampler.churn 0.7", "--weights other.safetensors",
               "--grid karras:5", "--grid karras:6", "--labels 0,1", "--guidance_scale 2", "--guidance_scale 1,2",
               "--seed 1", "--sampler ddim", "--noise brownian", "--num_samples 3"],
    "encode": ["", "--rtol 1e-2", "--atol 1e-2", "--split train", "--labels data", "--weights other.safetensors",
               "--num_samples 3", "--seed 1"],
    "interpolate": ["--items 0,1", "--items 1,2", "--seeds 0,1", "--items 0,1 --frames 2", "--items 0,1 --split train",
                    "--items 0,1 --rtol 1e-2"],
    "edit": ["", "--items 0,2", "--items 1,0", "--sampler ddim", "--config.sampler.churn=0.5", "--start_time 0.5",
             "--noise brownian", "--steps 3"],
    "restore": ["", "--items 0,2", "--sampler ddim", "--mask MASKS0/mine.npy", "--mask MASKS1/mine.npy", "--steps 3",
                "--draws 2", "--task superres", "--sigma_y 0.5", "--method pigdm", "--resamplings 1"],
    "visualize": ["", "--frames 3", "--sampler ddim", "--labels 1", "--grid karras", "--num_samples 3", "--steps 3",
                  "--weights other.safetensors"],
}  # fmt: skip
TWO = ["--num_samples", 2]
FEW = {"sample": TWO, "encode": [*TWO, *LOOSE], "interpolate": LOOSE, "edit": TWO, "restore": TWO,
       "visualize": ["--what", "denoised", *TWO, "--frames", 2]}  # fmt: skip


@pytest.mark.usefixtures("unrendered")
@pytest.mark.filterwarnings("ignore:the samples miss")
@pytest.mark.parametrize("mode", COMMANDS)
def test_other_flags_have_other_files(photos, capsys, mode):
    files = set()
    for flags in COMMANDS[mode]:
        flags = flags.replace("MASKS", f"{photos.folder}/masks").split()
        few = [] if "--items" in flags and mode != "interpolate" else FEW.get(mode, [])
        few = few if "--steps" in flags or mode in ("encode", "interpolate") else [*few, "--steps", 2]
        status, result, error = call(capsys, "--mode", mode, "--workdir", photos.folder, *few, *flags)
        assert status == 0, error
        numbers = result["numbers"] if isinstance(result["numbers"], str) else result["numbers"][0]
        assert Path(numbers).is_file()
        files.add(numbers)
    assert len(files) == len(COMMANDS[mode])
