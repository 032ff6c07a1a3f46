"""Names of output files: numbered, never taken twice, with what the command set inside; and flags' old names."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from samplers import NOISES
from score_sde.cli.flags import OLD_FLAGS
from score_sde.cli.modes import MODES
from score_sde.run.folder import Run
from score_sde.run.guidance import GuidanceOptions
from score_sde.run.outputs import settings_of, stem
from tests.score_sde.runs import call, untrained

OWN = {"sampler": "heun", "weights": "model.safetensors"}


def settings(given, overrides=(), mode="sample"):
    return settings_of(given, [*overrides], OWN | MODES[mode].defaults)


def test_what_is_at_its_default_is_no_setting():
    given = {"noise": NOISES[0], "guidance_scale": (1.0,), "weights": "model.safetensors",
             "sampler": "heun", "labels": "", "batch_size": 256, "seed": 0}  # fmt: skip
    assert settings(given | {"mode": "sample", "workdir": "w", "device": "cpu", "out": "o"}) == {}
    assert settings({"guidance_scale": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)}, mode="guidance_sweep") == {}
    assert settings({"sampler": "sa_solver"}, mode="restore") == {}
    assert settings({"sampler": "heun"}, mode="restore") == {"sampler": "heun"}, "which is not its default"


def test_the_rest_is():
    assert settings({"labels": "0,1", "guidance_scale": (-2.5,)}) == {"labels": "0,1", "guidance_scale": "-2.5"}
    assert settings({"rtol": 1e-7, "seed": 3}, mode="encode") == {"rtol": "1e-07", "seed": "3"}
    overrides = ["--config.sampler.name=ddim", "--config.sampler.eta=0.5", "--config.data.root=/x/digits"]
    assert settings({}, overrides) == {
        "sampler": "ddim", "config.sampler.eta": "0.5", "config.data.root": "/x/digits"
    }  # fmt: skip


def test_names_are_numbered(tmp_path):
    run = Run(tmp_path, None, None)
    samples = tmp_path / "samples"
    assert stem(run, None, "heun-25") == samples / "000001-heun-25"
    assert stem(run, None, "guidance-sweep", ".json") == samples / "000002-guidance-sweep"
    assert sorted(path.name for path in samples.iterdir()) == ["000001-heun-25.npz", "000002-guidance-sweep.json"]
    (samples / "train-00000400.png").touch()
    (samples / "000041-edit.png").touch()
    assert stem(run, None, "edit") == samples / "000042-edit"


def test_commands_at_once_take_different_names(tmp_path):
    run = Run(tmp_path, None, None)
    with ThreadPoolExecutor(8) as pool:
        names = [*pool.map(lambda _: stem(run, None, "heun-25"), range(40))]
    assert len({*names}) == 40
    assert len([*(tmp_path / "samples").iterdir()]) == 40


def test_out_is_taken_as_it_is():
    run = Run(Path("runs"), None, None, settings={"labels": "1"})
    assert [stem(run, f"a/b{suffix}", "head") for suffix in (".png", ".npz", ".json")] == [Path("a/b")] * 3
    assert stem(run, "a/b.c", "head") == Path("a/b.c")


def test_an_argument_that_is_a_dataclass_is_the_flags_of_its_fields():
    for name in ("sample", "likelihood"):
        mode = MODES[name]
        assert mode.arguments({}) == {}
        assert mode.arguments({"guidance_scale": (2.0,), "threshold": "0.9", "seed": 3}) == {
            "guidance": GuidanceOptions(2.0, threshold="0.9"), "seed": 3
        }  # fmt: skip
        with pytest.raises(ValueError, match="--guidance_scale=1,2: takes a single scale here; --mode guidance_sweep"):
            mode.arguments({"guidance_scale": (1.0, 2.0)})
        with pytest.raises(ValueError, match="--autoguidance=w: with --guidance_scale=1 it does nothing"):
            mode.arguments({"guidance_scale": (1.0,), "autoguidance": "w"})
    assert MODES["guidance_sweep"].arguments({"guidance_scale": (1.0, 2.0)}) == {"guidance_scale": (1.0, 2.0)}


@pytest.mark.parametrize("flag", OLD_FLAGS)
def test_old_flags_are_told_their_new_names(capsys, flag):
    for argument in ([f"--{flag}=3"], [f"--{flag}", "3"], [f"-{flag}", "3"]):
        status, result, error = call(capsys, "--mode", "sample", *argument)
        assert (status, result) == (2, None)
        assert error == f"error: --{flag} has a new name: take {OLD_FLAGS[flag]}\n"
    new = {name for name in OLD_FLAGS[flag].replace(",", "").split() if name.startswith("--") and name != "--mode"}
    known = set().union(*(mode.flags for mode in MODES.values()))
    assert {name.removeprefix("--") for name in new} <= known
    assert flag not in known


def test_old_values_are_told_their_new_names(capsys):
    for argument in (["--method=moments"], ["--method", "moments"]):
        status, _, error = call(capsys, "--mode", "restore", *argument)
        assert (status, error) == (2, "error: --method=moments has a new name: take --method=mmps\n")


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
    "sample": ["", "--config.sampler.churn=0.5", "--config.sampler.churn 0.7", "--labels 0,1", "--guidance_scale 2"],
    "encode": ["", "--rtol 0.01", "--split train"],
    "interpolate": ["--items 0,1", "--seed_pairs 0,1", "--items 0,1 --frames 2"],
    "edit": ["", "--items 0,2", "--sampler ddim"],
    "restore": ["", "--mask MASKS0/mine.npy", "--mask MASKS1/mine.npy", "--samples_per_item 2", "--repaint_steps 1"],
    "visualize": ["", "--frames 3", "--weights other.safetensors"],
}  # fmt: skip
TWO = ["--num_samples", 2]
FEW = {"sample": TWO, "encode": [*TWO, *LOOSE], "interpolate": LOOSE, "edit": TWO, "restore": TWO,
       "visualize": ["--plots", "denoised", *TWO, "--frames", 2]}  # fmt: skip


@pytest.mark.filterwarnings("ignore:the samples (miss|leave)")
@pytest.mark.parametrize("mode", COMMANDS)
def test_every_command_has_files_of_its_own_with_its_settings(photos, capsys, mode):
    files = set()
    for flags in COMMANDS[mode] * 2:
        flags = flags.replace("MASKS", f"{photos.folder}/masks").split()
        few = [] if "--items" in flags and mode != "interpolate" else FEW.get(mode, [])
        few = few if mode in ("encode", "interpolate") else [*few, "--steps", 2]
        status, result, error = call(capsys, "--mode", mode, "--workdir", photos.folder, *few, *flags)
        assert status == 0, error
        numbers = result["numbers"] if isinstance(result["numbers"], str) else result["numbers"][0]
        with np.load(numbers) as arrays:
            assert json.loads(str(arrays["settings"])) == result["settings"]
        for flag, value in zip(flags[::2], flags[1::2], strict=False):
            assert result["settings"][flag.removeprefix("--")] == value
        files.add(numbers)
    assert len(files) == 2 * len(COMMANDS[mode])
    assert all(path.stat().st_size for path in (photos.folder / "samples").iterdir())
