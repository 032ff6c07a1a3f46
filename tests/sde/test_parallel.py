"""Two processes under torchrun against one: the same curves, weights, samples and likelihoods; sharded runs and their
states; signals and mistakes. All of it in one launch, since starting takes longer than the work."""

import json
import os
import signal
import time
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import run as torchrun

from sde.checkpoint.states import Checkpoints
from sde.distributed.sharding import blocks
from sde.distributed.world import World
from sde.networks import MLP, DiT, UNet
from tests.forks import FORK
from tests.sde.workers import ALONE, CASES, POINTS, USES, advance, command, rank, trainer, weights, work

# One worker, so that what they share, the server of tests.forks too, is started once.
pytestmark = pytest.mark.xdist_group("processes")


def launch(folder, alone, output):
    """torchrun with two processes of tests.sde.workers, which begin with the imports done."""
    os.setsid()
    with open(output, "w") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    found = torchrun.config_from_args

    def forked(arguments):
        return found(arguments)[0], rank, [folder, alone]

    with patch.object(torchrun, "config_from_args", forked):
        torchrun.main(["--standalone", "--nproc_per_node", "2", "--start_method", "fork", "tests.sde.workers"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of one process and of two, the latter ended by SIGTERM to torchrun."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    work(one, one, World())
    output = two.with_name("torchrun.txt")
    process = FORK.Process(target=launch, args=(two, one, output))
    process.start()
    try:
        metrics, deadline = two / "endless" / "metrics.jsonl", time.monotonic() + 240
        while not (metrics.exists() and len(metrics.read_text().splitlines()) > 5):
            assert process.is_alive(), output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGTERM)
        process.join(60)
    finally:
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
    return one, two


@pytest.fixture(scope="module")
def found(runs):
    """What one process and two found."""
    return [torch.load(folder / "found.pt") for folder in runs]


def near(a, b, tolerance=1e-5):
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], rtol=tolerance, atol=1e-6) for name in a)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("parallel", "name"),
    [*((parallel, name) for parallel in ("ddp", "fsdp") for name in CASES), *(("ddp", name) for name in ALONE)],
)
def test_curves_are_those_of_one_process(found, parallel, name):
    one, two = (values[parallel, name] for values in found)
    assert torch.equal(one["skipped"], two["skipped"])
    assert (two["skipped"].nonzero().flatten() + 1).tolist() == ([2, 4] if name == "skipping" else [])
    assert two["loss"].isfinite().sum() == (19 if name == "skipping" else 20)
    assert name != "clipped" or not (one["norm"] < CASES["clipped"]["max_grad_norm"]).any(), "every step of it is"
    assert torch.equal(one["objective"], one["loss"]) == (name != "uncertain") or name == "skipping"
    for values in ("loss", "objective", "norm"):
        torch.testing.assert_close(two[values], one[values], rtol=1e-5, atol=0, equal_nan=True)
    assert near(one["weights"], two["weights"])


@pytest.mark.parametrize(
    ("name", "folder", "steps", "measured"),
    [("trained", "ddp", 12, ("held_out_loss", "held_out_loss_raw")), ("distilled", "student", 6, ())],
)
def test_commands_give_the_curve_of_one_process(runs, found, name, folder, steps, measured):
    (status, out, err), (other, silent, _) = found[1][name]
    assert (status, other) == (0, 0), err
    assert json.loads(out.splitlines()[-1])["steps"] == steps
    assert silent == "", "one process speaks"
    one, two = ([json.loads(line) for line in (run / folder / "metrics.jsonl").open()] for run in runs)
    for key in ("loss", "grad_norm", *measured):
        curves = [[line[key] for line in lines if key in line] for lines in (one, two)]
        assert len(curves[0]) == (1 if key in measured else steps)
        np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)
    assert near(*(load_file(run / folder / "model.safetensors") for run in runs))


@pytest.mark.parametrize("name", [name for name in USES if name != "evaluate"])
def test_uses_of_a_run(runs, name):
    one, two = (np.load(run / f"{name}.npz") for run in runs)
    assert set(one) == set(two)
    assert str(one["settings"]) == str(two["settings"])
    for key in set(one) - {"settings"}:
        np.testing.assert_allclose(two[key], one[key], rtol=1e-6, atol=1e-6, err_msg=key)


def test_evaluation(runs):
    one, two = (json.loads((run / "evaluate.json").read_text()) for run in runs)
    assert one["items"] == two["items"]
    for name in ("energy", "sliced_wasserstein", "density", "accuracy"):
        numbers = [[found["values"][name][key] for key in ("value", "low", "high")] for found in (one, two)]
        assert numbers[1] == pytest.approx(numbers[0], rel=1e-5, abs=1e-7), name


def test_blocks_are_sharded_one_by_one():
    options = {"channel_mult": (1, 2), "num_res_blocks": 1, "channels": 8, "resample_blocks": True}
    names = {
        "unet": ["encoder.levels.0.0", "encoder.levels.1.0", "encoder.downs.0", "middle.0", "middle.1", "levels.0.0",
                 "levels.0.1", "levels.1.0", "levels.1.1", "ups.0"],
        "dit": ["blocks.0", "blocks.1"], "mlp": ["encoder.layers.0", "encoder.layers.1"],
    }  # fmt: skip
    built = {
        "unet": UNet((1, 8, 8), **options),
        "dit": DiT((1, 8, 8), width=12, depth=2),
        "mlp": MLP((3,), layers=2),
        "nested": torch.nn.ModuleList([torch.nn.ModuleDict({"inner": torch.nn.ModuleList([torch.nn.Linear(1, 1)])})]),
    }
    for kind, network in built.items():
        name_of = {module: name for name, module in network.named_modules()}
        found = [name_of[block] for block in blocks(network)]
        # An inner block comes before the one that holds it.
        assert found == ["0.inner.0", "0"] if kind == "nested" else sorted(found) == sorted(names[kind])


def test_each_process_holds_its_part(found):
    """Of the weights, their average and the optimizer's two moments."""
    held, total = found[1]["states"]["held"], 4 * sum(p.numel() for p in trainer(World(), "ddp").module.parameters())
    assert sum(held) == total
    assert max(held) < 0.65 * total


def test_sharded_states(runs, found):
    states = found[1]["states"]
    assert states["kept"] == ["denoiser-00000008", "denoiser-00000006"]
    assert states["continued"]["step"] == 8
    assert equal(states["continued"]["weights"], states["straight"])
    for name in ("flipped", "cut", "lost"):
        assert states[name]["step"] == 6
        assert "denoiser-00000008 is damaged" in states[name]["passed"][0]
        assert equal(states[name]["weights"], states["straight"])
    assert states["from a file"]["step"] == 6
    assert near(states["from a file"]["weights"], states["straight"])
    assert "network.encoder.embedding.label.table.weight is (3, 7) there and (3, 8) here" in states["other network"]
    assert all("not all processes see the checkpoints" in error for error in states["own folders"])


def test_sharded_states_are_read_by_one_process(runs, found):
    run = trainer(World(), "fsdp")
    state, passed = Checkpoints(runs[1] / "states", "denoiser").load(run.state_template)
    run.load_state_dict(state)
    assert (run.step, len(passed)) == (6, 1)
    assert near(weights(advance(run, 20)), found[1]["states"]["straight"])


def test_a_blank_state_changes_nothing():
    plain, asked = trainer(World(), "ddp"), trainer(World(), "ddp")
    memory = asked.state_template()["optimizer"]["state"][0]
    assert all(not value.any() for value in memory.values())
    assert equal(weights(advance(asked, 3)), weights(advance(plain, 3)))


def test_full_disk_of_one_process(found):
    full = found[1]["states"]["full disk"]
    assert full["errors"] == ["[Errno 28] No space left on device"] * 2
    assert full["left"] == ["denoiser-00000006", "denoiser-00000008"]


def test_a_signal_to_one_process_ends_all(runs, found):
    """And the same command goes on, to the weights of one process that was never stopped."""
    for ended, finished in found[1]["stopped"]:
        assert (ended[0], finished[0]) == (0, 0), ended[2] + finished[2]
    ended, finished = (json.loads(out.splitlines()[-1]) for _, out, _ in found[1]["stopped"][0])
    assert (ended["ended"], ended["steps"]) == ("stopped by SIGTERM", 5)
    assert (finished["ended"], finished["steps"]) == ("finished", 12)
    assert [path.name for path in Checkpoints(runs[1] / "fsdp" / "checkpoints", "denoiser").paths()] == [
        "denoiser-00000012", "denoiser-00000008"]  # fmt: skip
    for name in ("model.safetensors", "ema/power-0.1-00000008.safetensors", "ema/power-0.1-00000012.safetensors"):
        assert near(load_file(runs[1] / "fsdp" / name), load_file(runs[0] / "ddp" / name))


def test_sigterm_to_torchrun(runs):
    """Every process saves and exits well, and another number of them continues."""
    folder = runs[1] / "endless"
    outcomes = [json.loads((runs[1] / f"ended-{rank}.json").read_text()) for rank in (0, 1)]
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    last = json.loads(outcomes[0][1].splitlines()[-1])
    assert last["ended"] == "stopped by SIGTERM"
    assert Checkpoints(folder / "checkpoints", "denoiser").paths()[0].name == f"denoiser-{last['steps']:08d}"
    steps = last["steps"] + 3
    status, out, err = command(*POINTS, f"--config.training.steps={steps}", "--workdir", folder)
    assert status == 0, err
    assert f"continuing {folder} at step {last['steps']}" in out
    assert json.loads(out.splitlines()[-1])["steps"] == steps


def test_batch_that_cannot_be_split(found):
    for status, _, err in found[1]["refused"]:
        assert status == 2
        assert (
            "batch_size = 66 cannot be split into config.training.gradient_accumulation = 2 parts for each of 2" in err
        )
        assert "nearest is 64 or 68" in err
