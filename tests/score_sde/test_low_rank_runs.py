"""Runs of low-rank updates: trained on the weights of another run, kept as few weights, continued, merged, refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from samplers import generate
from samplers.heun import Heun
from score_sde.cli import main
from sde.checkpoint import load_model, save_model
from sde.checkpoint.base import describe_base
from sde.checkpoint.models import load_unmerged
from sde.checkpoint.snapshots import stored_spec
from sde.networks.lora import low_rank_layers
from tests.score_sde.runs import SMALL, call, change_config, disagreements, made_once, trained_once

OPTIONS = [*SMALL, "--config.training.batch_size=32", "--config.training.lr=0.05", "--config.training.warmup_steps=1",
           "--config.training.checkpoint_every=2", "--config.training.lr_decay=none",
           "--config.training.sample_every=9", "--config.model.lora_rank=2",
           "--config.model.lora_alpha=4"]  # fmt: skip


def command(base, folder, steps=4, *more):
    own = [option for option in OPTIONS if not option.startswith("--config.model.network")]
    return ["--mode", "train", "--init", str(base), "--workdir", str(folder), *own,
            f"--config.training.steps={steps}", *more]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return trained_once(tmp_path_factory)


@pytest.fixture(scope="module")
def low(tmp_path_factory, base):
    """A run of updates of the run of points."""
    return made_once(tmp_path_factory, "low_rank", lambda folder: main.main(command(base, folder)))


def test_the_file_holds_the_few_weights_and_names_its_base(base, low):
    held = load_file(low / "model.safetensors")
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in held)
    whole = load_model(base / "model.safetensors")
    updated = load_unmerged(low / "model.safetensors")
    names = [name for name, _ in low_rank_layers(updated)]
    assert {*held} == {f"{name}.lora_{factor}.weight" for name in names for factor in "AB"}
    assert {name.rpartition(".")[0] for name, p in whole.named_parameters() if p.ndim > 1} >= {*names}
    state = torch.load(next((low / "checkpoints").glob("*.pt")), weights_only=True)
    assert {*state["module"]} == {*held} == {*state["ema"]["average"]}


def test_the_model_is_its_base_and_the_updates(base, low):
    whole, merged = (load_model(folder / "model.safetensors") for folder in (base, low))
    held, before = load_file(low / "model.safetensors"), whole.state_dict()
    assert all(p.requires_grad for p in merged.parameters())
    for name, value in merged.state_dict().items():
        layer = name.removesuffix(".weight")
        update = 0.0
        if f"{layer}.lora_B.weight" in held:
            # alpha / rank = 4 / 2.
            update = 2 * held[f"{layer}.lora_B.weight"] @ held[f"{layer}.lora_A.weight"]
            assert update.abs().max() > 1e-4
        assert torch.allclose(value, before[name] + update, atol=1e-6), name
    x, t = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5)
    unmerged = load_unmerged(low / "model.safetensors")
    assert torch.allclose(unmerged(x, t), merged(x, t), atol=1e-5)


def test_its_description_is_that_of_its_config(low, tmp_path, capsys):
    assert disagreements(capsys, low) == []
    shutil.copytree(low, tmp_path / "other")
    change_config(tmp_path / "other", "model", "lora_alpha", 1.0)
    assert disagreements(capsys, tmp_path / "other") == ["lora.alpha"]


def test_it_goes_on_where_it_was(base, low, tmp_path, capsys):
    folder = tmp_path / "again"
    shutil.copytree(low, folder)
    # As it was after two steps.
    (folder / "checkpoints" / "denoiser-00000004.pt").unlink()
    (folder / "model.safetensors").unlink()
    # The base is in the run: nobody names it again.
    again = [part for part in command(base, folder, 4) if part not in ("--init", str(base))]
    assert main.main(again) == 0
    assert "continuing" in capsys.readouterr().out
    one, other = (load_file(path / "model.safetensors") for path in (folder, low))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_file_is_merged_at_any_scale(base, low, tmp_path, capsys):
    def drawn(folder, *more):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.npz"
        options = ["--num_samples", "6", "--sampler", "heun", "--steps", "4", "--labels", "none"]
        assert call(capsys, "--mode", "sample", "--workdir", folder, "--out", out, *options, *more)[0] == 0
        return torch.from_numpy(np.load(out)["x"])

    own = drawn(low)
    assert torch.allclose(drawn(base, "--lora", low), own, atol=1e-5)
    assert torch.allclose(drawn(base, "--lora", f"{low}:0.25,{low / 'model.safetensors'}:0.75"), own, atol=1e-5)
    assert torch.allclose(drawn(low, "--lora", f"{low}:-1"), drawn(base), atol=1e-5)
    assert not torch.allclose(drawn(base), own, atol=1e-3)
    model = load_model(low / "model.safetensors")
    assert torch.allclose(generate(model, Heun(), 6, (2,), steps=4).x.float(), own.float(), atol=1e-5)


def test_a_new_run_may_begin_with_the_merged_weights(low, tmp_path):
    steps = [f"--config.training.{key}={value}" for key, value in {"steps": 1, "lr": 1e-12, "batch_size": 32}.items()]
    assert main.main(["--mode", "train", "--init", str(low), "--workdir", str(tmp_path / "whole"), *steps]) == 0
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["model"]["lora_rank"] == 0
    one, other = (load_model(path / "model.safetensors").state_dict() for path in (tmp_path / "whole", low))
    assert all(torch.allclose(value, other[name], atol=1e-6) for name, value in one.items())


def test_runs_that_move_together_find_each_other(base, low, tmp_path):
    runs, moved = tmp_path / "runs", tmp_path / "moved"
    (runs / "base").mkdir(parents=True)
    shutil.copy(base / "model.safetensors", runs / "base" / "model.safetensors")
    spec = stored_spec(low / "model.safetensors") | {"base": describe_base(runs / "base" / "model.safetensors")}
    save_model(runs / "low" / "model.safetensors", "denoiser", spec, load_file(low / "model.safetensors"))
    runs.rename(moved)
    found, file = load_model(moved / "low" / "model.safetensors"), moved / "base" / "model.safetensors"
    expected = load_model(low / "model.safetensors").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())
    inner = moved / "low" / "ema" / "0.9.safetensors"
    inner.parent.mkdir(exist_ok=True)
    shutil.copy(moved / "low" / "model.safetensors", inner)
    assert all(torch.equal(value, expected[name]) for name, value in load_model(inner).state_dict().items())
    with file.open("ab") as held:
        held.write(b" ")
    with pytest.raises(ValueError, match="is another file now: put the old one back"):
        load_model(moved / "low" / "model.safetensors")
    file.unlink()
    with pytest.raises(ValueError, match=r"holds low-rank updates of the weights in .*, which does not exist"):
        load_model(moved / "low" / "model.safetensors")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--config.model.lora_rank=-1"], "config.model.lora_rank = -1"),
        (["--config.model.lora_alpha=-2.0"], "config.model.lora_alpha = -2"),
        (["--config.model.lora_targets=to_q"], "config.model.lora_targets = 'to_q'"),
    ],
)
def test_numbers_and_names_that_are_none_are_refused(base, tmp_path, capsys, more, words):
    status, _, err = call(capsys, *command(base, tmp_path / "run", 4, *more))
    assert status == 2
    assert words in err
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_updates_of_nothing_are_refused(tmp_path, capsys):
    arguments = ["--mode", "train", "--config", "points", "--workdir", tmp_path / "run", "--config.model.lora_rank=4"]
    status, _, err = call(capsys, *arguments)
    assert status == 2
    assert "config.model.lora_rank = 4: low-rank updates are of weights that are trained already" in err


def test_a_rank_that_changed_is_no_run_that_goes_on(base, low, capsys):
    status, _, err = call(capsys, *command(base, low, 8, "--config.model.lora_rank=3"))
    assert status == 2
    assert "config.model.lora_rank: 2, now 3" in err


def test_files_and_scales_that_are_none_are_refused(base, low, tmp_path, capsys):
    def refused(text):
        status, _, err = call(capsys, "--mode", "sample", "--workdir", base, "--lora", text)
        assert status == 2
        return err

    assert "does not exist" in refused(tmp_path / "no.safetensors")
    assert "its scale is inf" in refused(f"{low}:inf")
    assert "holds no low-rank updates" in refused(base)
