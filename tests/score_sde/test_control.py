"""Controls from the command line: trained on a base that stays as it is, sampled, several at once, and mistakes."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from score_sde.cli import main
from score_sde.config.config import read_run_config, resolve
from score_sde.evaluation.control_scores import control_scores
from score_sde.metrics.agreement import f1_scores
from score_sde.run.control_files import read_control
from score_sde.run.folder import Run
from score_sde.run.guidance import UNGUIDED
from score_sde.run.trained_controls import trained_controls
from sde.checkpoint.models import load_model, save_model
from sde.checkpoint.snapshots import stored_spec
from sde.data.controls import silhouettes
from sde.data.edges import edges, sobel
from tests.oracles import simulated_device as sim
from tests.score_sde.runs import call, change_config, disagreements, made_once, run_of, untrained

pytestmark = pytest.mark.usefixtures("unrendered")
FEW = ["--config.training.steps=4", "--config.training.batch_size=16", "--config.training.checkpoint_every=2",
       "--config.training.sample_every=4", "--config.training.log_every=1", "--config.training.warmup_steps=0",
       "--config.control.hint_channels=(4,)", "--config.training.lr=0.02",
       "--config.training.lr_decay=none"]  # fmt: skip
DRAW = ["--num_samples", "4", "--steps", "3", "--sampler", "dpmpp"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a run of digits on random weights, base, and of its controls, edges and low."""

    def make(folder):
        folder.mkdir()
        (folder / "base").mkdir()
        run_of("digits", folder / "base")
        for name, more in (("edges", []), ("low", ["--config.data.control=low_resolution"])):
            command = ["--mode", "train", "--config", "digits_edges", "--base", folder / "base", *FEW, *more]
            assert main.main([*map(str, command), "--workdir", str(folder / name)]) == 0

    return made_once(tmp_path_factory, "controls", make)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def drawn(capsys, folder, tmp_path, *more):
    status, last, err = call(capsys, "--mode", "sample", "--workdir", folder, *DRAW, "--out", tmp_path / "s", *more)
    assert status == 0, err
    with np.load(last["numbers"]) as held:
        return {name: held[name] for name in held.files}


def test_a_run_holds_its_base(runs, tmp_path, capsys):
    """The file of the base is as it was, its weights are in the control's run, and the control draws without it. A
    run that is interrupted goes on to the same weights, without being told its base."""
    spec = stored_spec(runs / "edges" / "model.safetensors")
    assert spec["control"]["sha256"] == digest(runs / "base" / "model.safetensors")
    base, model = (load_model(runs / name / "model.safetensors") for name in ("base", "edges"))
    own = model.network.base.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in base.network.state_dict().items())
    first = model.network.branches[0].copy.state_dict()
    assert not all(torch.equal(value, own[name]) for name, value in first.items())
    config = json.loads((runs / "edges" / "config.json").read_text())
    assert config["model"] == json.loads((runs / "base" / "config.json").read_text())["model"]
    more = ["--base", runs / "base", "--config.training.steps=2", "--config.training.sample_every=9"]
    command = ["--mode", "train", "--config", "digits_edges", *FEW, *more, "--workdir", tmp_path / "r"]
    assert call(capsys, *command)[0] == 0
    assert call(capsys, "--mode", "train", "--workdir", tmp_path / "r", "--config.training.steps=4")[0] == 0
    ended, at_once = load_model(tmp_path / "r" / "model.safetensors").state_dict(), model.state_dict()
    for name, value in at_once.items():
        torch.testing.assert_close(ended[name], value, rtol=1e-5, atol=1e-6)


def test_its_description_is_that_of_its_config(runs, tmp_path, capsys):
    assert disagreements(capsys, runs / "edges") == []
    shutil.copytree(runs / "edges", tmp_path / "other")
    change_config(tmp_path / "other", "control", "hint_channels", [8])
    assert disagreements(capsys, tmp_path / "other") == ["control.hint_channels"]


def test_scales_of_one_and_several_controls(runs, tmp_path, capsys):
    """Scale 0 draws the base's samples bit for bit, one control beside a 0 those of its own run; the order of the runs
    is that of the scales, and the base may stand first."""
    base = drawn(capsys, runs / "base", tmp_path, "--labels", "3")["x"]
    control = np.random.default_rng(0).integers(0, 2, (4, 1, 8, 8)).astype(np.float32)
    low = np.random.default_rng(1).uniform(0, 16, (4, 1, 4, 4)).astype(np.float32)
    np.save(tmp_path / "e.npy", control)
    np.save(tmp_path / "l.npy", low)
    one = ["--labels", "3", "--control", tmp_path / "e.npy"]
    edged = drawn(capsys, runs / "edges", tmp_path, *one)
    assert np.array_equal(edged["control"], control)
    assert not np.array_equal(edged["x"], base)
    assert np.array_equal(drawn(capsys, runs / "edges", tmp_path, *one, "--control_scale", "0")["x"], base)
    both = ["--labels", "3", "--control", f"{tmp_path / 'e.npy'},{tmp_path / 'l.npy'}"]
    several = ["--controls", f"{runs / 'edges'},{runs / 'low'}"]
    found = drawn(capsys, runs / "base", tmp_path, *both, *several, "--control_scale", "1,0")
    assert np.array_equal(found["x"], edged["x"])
    assert np.array_equal(found["control_2"], low)
    second = drawn(capsys, runs / "edges", tmp_path, *both, "--controls", runs / "low", "--control_scale", "0,1")["x"]
    alone = drawn(capsys, runs / "low", tmp_path, "--labels", "3", "--control", tmp_path / "l.npy")["x"]
    assert np.array_equal(second, alone)
    assert not np.array_equal(second, base)
    usual = drawn(capsys, runs / "edges", tmp_path, "--controls", runs / "low")
    assert usual["control"].shape == (4, 1, 8, 8)
    assert usual["control_2"].shape == (4, 1, 4, 4)


def test_controls_of_held_out_items(runs, tmp_path, capsys):
    """By default those of held-out items with their classes, and of the classes that are asked for."""
    run = Run(runs / "edges", resolve(read_run_config(runs / "edges"), []), torch.device("cpu"))
    _, held_out = run.data()
    own = {tuple(e.flatten().tolist()): int(c) for e, c in zip(edges(held_out.items), held_out.labels, strict=True)}
    _, cond = held_out.batch(torch.arange(20))
    controls = trained_controls(run, run.model(), UNGUIDED)
    found = control_scores(controls, cond, held_out.items[:20], held_out)
    assert (found["value"], found["low"], found["high"], found["control"]) == (1.0, 1.0, 1.0, "edges")
    others = f1_scores(edges(held_out.items[:20]), edges(held_out.items[:20]).roll(1, 0))
    assert found["chance"] == others.mean().item() < 0.9
    for more, classes in ((), None), (("--labels", "7,1,7"), [7, 1, 7, 7]):
        found = drawn(capsys, runs / "edges", tmp_path, *more)
        known = [own[tuple(e.flatten().tolist())] for e in found["control"]]
        assert known == found["labels"].tolist()
        assert classes in (None, known)
        assert len({e.tobytes() for e in found["control"]}) == 4


def test_images_that_come_with_the_items(tmp_path, capsys):
    """The array control of an .npz, of any channels and in lower resolution, not there in some rows."""
    rng = np.random.default_rng(0)
    x, control = rng.normal(size=(40, 1, 8, 8)), rng.uniform(-3, 5, size=(40, 2, 4, 4)).astype(np.float32)
    control[::5] = np.nan
    untrained(tmp_path / "base", x)
    np.savez(tmp_path / "both.npz", x=x, control=control)
    command = ["--mode", "train", "--base", tmp_path / "base", "--workdir", tmp_path / "given", *FEW]
    more = [f"--config.data.root={tmp_path / 'both.npz'}", "--config.data.control=given"]
    assert call(capsys, *command, *more)[0] == 0
    spec = stored_spec(tmp_path / "given" / "model.safetensors")
    assert spec["conditions"]["control"]["shape"] == [2, 4, 4]
    assert -3.01 < spec["control"]["range"][0] < -2.9
    assert 4.9 < spec["control"]["range"][1] < 5.01
    found = drawn(capsys, tmp_path / "given", tmp_path)["control"]
    assert all((control == row).all((1, 2, 3)).any() or np.isnan(row).all() for row in found)


def test_edits_are_controlled(runs, tmp_path, capsys):
    """By what is given, beside the class; by none, the base edits, and with the items' own data it does not."""
    np.save(tmp_path / "e.npy", np.ones((1, 8, 8), np.float32))
    found = {}
    for folder, flags in (
        ("base", ["--labels", "3"]),
        ("edges", ["--labels", "3"]),
        ("edges", ["--labels", "3", "--control", tmp_path / "e.npy"]),
        ("edges", ["--labels", "data"]),
    ):
        command = ["--mode", "edit", "--workdir", runs / folder, "--items", "0,1", "--start_time", "0.7", "--steps", 2]
        status, _, err = call(capsys, *command, *flags, "--out", tmp_path / "edited")
        assert status == 0, err
        with np.load(tmp_path / "edited.npz") as held:
            found[folder, *map(str, flags)] = np.concatenate([held[name].ravel() for name in held if "x" in name])
    base, alone, controlled, own = found.values()
    assert np.array_equal(base, alone)
    assert not np.array_equal(alone, controlled)
    assert not np.array_equal(alone, own)


@pytest.mark.skipif(not sim.available, reason="this torch has no interface for devices written in Python")
def test_on_a_device(runs, tmp_path, capsys):
    """Drawn on a simulated device as on the CPU, by two controls."""
    found = {}
    for device in ("cpu", sim.NAME):
        more = ["--controls", runs / "low", "--control_scale", "1,0.5", "--device", device, "--steps", "1"]
        found[device] = drawn(capsys, runs / "edges", tmp_path, *more)["x"].astype(float)
    one, other = found.values()
    # Quantized: what lies between two levels may fall to either.
    assert (abs(one - other) <= 1).all()
    assert (one == other).mean() > 0.98


def test_controls_are_read(tmp_path):
    """Pictures from black to white over the control's range, in the order of their names; arrays as they are."""
    gray = np.array([[0, 255], [51, 204]], np.uint8)
    Image.fromarray(gray).save(tmp_path / "b.png")
    Image.fromarray(255 - gray).save(tmp_path / "a.png")
    expected = 2 + 10 * torch.from_numpy(gray).float()[None, None] / 255
    torch.testing.assert_close(read_control("--control=", str(tmp_path / "b.png"), (1, 2, 2), (2, 12)), expected)
    both = read_control("--control=", str(tmp_path), (1, 2, 2), (0, 1))
    torch.testing.assert_close(both[:, 0], torch.from_numpy(np.stack([255 - gray, gray])).float() / 255)
    np.savez(tmp_path / "c.npz", control=np.full((3, 1, 2, 2), 0.5), other=np.zeros(1))
    assert read_control("--control=", str(tmp_path / "c.npz"), (1, 2, 2), (0, 1)).shape == (3, 1, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--mode", "train", "--config", "digits_edges", "--workdir", "{t}/x"], "--base"),
        (["--mode", "train", "--base", "{t}", "--workdir", "{t}/x"], "is no run folder"),
        (["--mode", "train", "--base", "{r}/base", "--workdir", "{t}/x"], "config.data.control=edges"),
        (["--mode", "train", "--config", "digits_edges", "--base", "{r}/edges", "--workdir", "{t}/x"],
         "holds a control itself"),
        (["--mode", "train", "--config", "digits_edges", "--base", "{r}/base", "--workdir", "{t}/x",
          "--config.model.network.channels=8"], "has the network and the process of its --base"),
        (["--mode", "train", "--config", "digits_edges", "--base", "{r}/base", "--workdir", "{r}/base"],
         "a run folder of its own"),
        (["--mode", "train", "--config", "digits_edges", "--base", "{r}/base", "--workdir", "{t}/x",
          "--config.data.control=edge"], "did you mean edges"),
        (["--mode", "train", "--config", "digits_edges", "--base", "{r}/base", "--workdir", "{t}/x",
          "--config.data.downsample=2", "--config.data.event_shape=(1,4,4)"], r"items of shape \(1, 8, 8\)"),
        (["--mode", "train", "--config", "digits_edges", "--base", "{r}/base", "--workdir", "{t}/x",
          "--config.data.control=given"], "the data hold no control"),
        (["--mode", "train", "--config", "digits_edges", "--base", "{t}/empty", "--workdir", "{t}/x"],
         "has no model.safetensors"),
        (["--mode", "sample", "--workdir", "{r}/base", "--control", "{t}/e.png"], "has no control"),
        (["--mode", "sample", "--workdir", "{r}/base", "--control_scale", "1"], "has no control"),
        (["--mode", "sample", "--workdir", "{r}/edges", "--control", "{t}/e.png"], "is 3 wide and 2 high"),
        (["--mode", "sample", "--workdir", "{r}/edges", "--control", "{t}/no.png"], "does not exist"),
        (["--mode", "sample", "--workdir", "{r}/edges", "--control", "{t}/e.png,{t}/e.png"], "2 files for 1 control"),
        (["--mode", "sample", "--workdir", "{r}/edges", "--control", "{t}/large.npy"], "from 0 to 255"),
        (["--mode", "sample", "--workdir", "{r}/edges", "--control_scale", "1,2"], "needs 1 finite number"),
        (["--mode", "sample", "--workdir", "{r}/edges", "--controls", "{r}/base"], "has no control"),
        (["--mode", "sample", "--workdir", "{r}/edges", "--control_branches", "all"], "needs one of both, conditional"),
        (["--mode", "distill", "--teacher", "{r}/edges", "--workdir", "{t}/x"], "distill the base alone"),
    ],
)  # fmt: skip
def test_mistakes(arguments, sentence, runs, tmp_path, capsys):
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "e.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_bytes((runs / "base" / "config.json").read_bytes())
    np.save(tmp_path / "large.npy", np.tile(np.array([0, 255.0], np.float32), 32).reshape(1, 1, 8, 8))
    status, _, err = call(capsys, *(part.format(r=runs, t=tmp_path) for part in arguments))
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert re.search(sentence, err), err
    assert not (tmp_path / "x" / "config.json").exists()


def test_another_base_is_refused(runs, tmp_path, capsys):
    (tmp_path / "base").mkdir()
    run = run_of("digits", tmp_path / "base")
    model = load_model(run.model_file)
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    save_model(run.model_file, "denoiser", stored_spec(run.model_file), model.state_dict())
    arguments = ["--mode", "sample", "--workdir", tmp_path / "base", "--controls", runs / "edges", "--labels", "1"]
    status, _, err = call(capsys, *arguments)
    assert status == 2
    assert "trained on another base" in err


def test_f1_by_hand():
    """2 / (1 / precision + 1 / recall), item by item, and 1 where nothing was asked for and nothing is there."""
    found = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    asked = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]])
    torch.testing.assert_close(f1_scores(found, asked), torch.tensor([2 / 3, 1, 0, 0], dtype=torch.float64))


def test_edges_by_hand():
    """A step has edges on both of its sides, of the channels' mean, whatever its direction; a flat item has none."""
    x = torch.zeros(3, 2, 4, 6)
    x[0, :, :, 3:] = 4
    x[1, 0, 2:] = 8
    expected = torch.zeros(3, 1, 4, 6)
    expected[0, :, :, 2:4] = 1
    expected[1, :, 1:3] = 1
    assert torch.equal(edges(x), expected)
    line = torch.tensor([[[0.0, 0, 0, 8, 8, 9, 9]]])
    assert edges(line).flatten().tolist() == [0, 0, 1, 1, 0, 0, 0]
    assert edges(line, 0.1).flatten().tolist() == [0, 0, 1, 1, 1, 1, 0]
    assert silhouettes(line).flatten().tolist() == [0, 0, 0, 1, 1, 1, 1]
    spot = torch.zeros(1, 2, 5, 5, dtype=torch.int64)
    spot[0, :, 2, 2] = 3
    corner, side = 3 * 2**0.5, 6.0
    around = torch.tensor([[corner, side, corner], [side, 0, side], [corner, side, corner]])
    torch.testing.assert_close(sobel(spot)[0, 0, 1:4, 1:4], around)
    # 3 by 3 by 3 about the only voxel, but for its middle.
    volume = torch.zeros(1, 1, 5, 5, 5)
    volume[0, 0, 2, 2, 2] = 1
    assert edges(volume, 0.0).sum() == 26
