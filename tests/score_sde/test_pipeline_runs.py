"""Pipelines on the command line: in the place of a run folder, for the modes that take them, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from tests.oracles.pipelines import stable_diffusion
from tests.score_sde.runs import call, change_config, disagreements, made_once

SIDE = 16


def picture(path, seed=0, side=SIDE):
    """Colors that change slowly."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 255, (2, 2, 3), dtype=np.uint8)
    Image.fromarray(small).resize((side, side)).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_once(tmp_path_factory, "pipeline", lambda path: stable_diffusion().save_pretrained(path))


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory):
    def make(path):
        stable_diffusion("StableDiffusionInpaintPipeline", in_channels=9).save_pretrained(path)

    return made_once(tmp_path_factory, "inpainting", make)


@pytest.fixture(scope="module")
def controlled(tmp_path_factory):
    from tests.sde.pretrained.pipelines.test_additions import controlled

    return made_once(tmp_path_factory, "controlled", lambda path: controlled(7).save_pretrained(path))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, mode, pipeline, *more):
    status, result, err = call(capsys, "--mode", mode, "--pipeline", pipeline, "--device", "cpu", *more)
    assert status == 0, err
    return result


def refused(capsys, mode, *more):
    status, _, err = call(capsys, "--mode", mode, "--device", "cpu", *more)
    assert status == 2
    return err


def test_samples_go_beside_where_the_command_runs(folder, elsewhere, capsys):
    result = run(capsys, "sample", folder, "--sampler", "ddim", "--steps", 2, "--num_samples", 2, "--seed", 3)
    numbers = elsewhere / result["numbers"]
    assert numbers.parent == elsewhere / "runs" / folder.name / "samples"
    held = np.load(numbers)
    assert held["x"].shape == (2, 3, SIDE, SIDE)
    assert json.loads(str(held["settings"]))["pipeline"] == str(folder)
    assert Image.open(elsewhere / result["picture"]).size[0] >= SIDE
    again = run(capsys, "sample", folder, "--sampler", "ddim", "--steps", 2, "--num_samples", 1, "--seed", 3,
                "--out", "one.npz")  # fmt: skip
    assert again["numbers"] == "one.npz"
    assert np.abs(np.load("one.npz")["x"].astype(float) - held["x"][:1]).max() <= 1
    assert not (elsewhere / "runs" / folder.name / "config.json").exists()


def test_prompts_and_guidance(folder, elsewhere, capsys):
    steps = ["--sampler", "dpmpp", "--steps", 3, "--num_samples", 2]
    prompted = run(capsys, "sample", folder, *steps, "--prompt", "a cat", "--guidance_scale", 7.5, "--out", "a.npz")
    run(capsys, "sample", folder, *steps, "--prompt", "b, c", "--guidance_scale", 7.5, "--out", "b.npz")
    run(capsys, "sample", folder, *steps, "--prompt", "a cat", "--out", "c.npz")
    a, b, c = (np.load(f"{name}.npz")["x"].astype(float) for name in "abc")
    assert np.abs(a - b).max() > 1
    assert np.abs(a - c).max() > 1
    assert prompted["nfe"] == 8


def test_a_plan_is_kept_beside_the_samples(folder, elsewhere, capsys):
    options = ["--sampler", "auto", "--steps", 3, "--num_samples", 1, "--prompt", "a cat", "--guidance_scale", 2]
    run(capsys, "sample", folder, *options)
    assert len(list((elsewhere / "runs" / folder.name / "plans").glob("3-*.json"))) == 1
    run(capsys, "sample", folder, *options)
    assert len(list((elsewhere / "runs" / folder.name / "plans").glob("3-*.json"))) == 1


def test_a_picture_is_edited(folder, elsewhere, capsys):
    result = run(capsys, "edit", folder, "--input", picture(elsewhere / "in.png"), "--start_time", "0.2,0.6",
                 "--sampler", "ddim", "--steps", 3, "--prompt", "a cat")  # fmt: skip
    held = np.load(elsewhere / result["numbers"])
    assert held["x"].shape == (1, 2, 3, SIDE, SIDE)
    assert result["changes"][0] < result["changes"][1]


@pytest.mark.parametrize("kind", ["folder", "inpainting"])
def test_a_picture_is_inpainted(kind, elsewhere, capsys, request):
    pipeline = request.getfixturevalue(kind)
    source = picture(elsewhere / "in.png")
    result = run(capsys, "restore", pipeline, "--task", "inpaint", "--mask", "left", "--input", source,
                 "--sampler", "ddim", "--steps", 3, "--samples_per_item", 2, "--prompt", "a cat")  # fmt: skip
    assert result["method"] == "latents"
    held = np.load(elsewhere / result["numbers"])
    truth = np.asarray(Image.open(source)).transpose(2, 0, 1)
    left = (slice(None), slice(None), slice(None), slice(0, SIDE // 2))
    assert (held["samples"][0][left] == truth[None][left]).all()
    assert result["measurement_error"] == 0


def test_pictures_are_encoded_and_come_back(folder, elsewhere, capsys):
    (elsewhere / "data").mkdir()
    for seed in range(8):
        picture(elsewhere / "data" / f"{seed}.png", seed, 24)
    result = run(capsys, "encode", folder, "--config.data.root=data", "--num_samples", 1, "--rtol", 1e-2, "--atol",
                 1e-2)  # fmt: skip
    assert result["num_samples"] == 1
    assert np.load(elsewhere / result["numbers"])["latent"].shape == (1, 4, 8, 8)


def test_controls_of_a_pipeline(controlled, elsewhere, capsys):
    options = ["--sampler", "ddim", "--steps", 2, "--num_samples", 1, "--prompt", "a cat"]
    control = ["--control", picture(elsewhere / "control.png")]
    run(capsys, "sample", controlled, *options, *control, "--out", "one.npz")
    run(capsys, "sample", controlled, *options, *control, "--control_scale", 0, "--out", "none.npz")
    run(capsys, "sample", controlled, *options, "--control_scale", 0, "--out", "alone.npz")
    one, none, alone = (np.load(f"{name}.npz")["x"].astype(float) for name in ("one", "none", "alone"))
    assert (none == alone).all()
    assert np.abs(one - none).max() > 1
    err = refused(capsys, "sample", "--pipeline", controlled, *options)
    assert "--control is needed: this pipeline has 1 ControlNet" in err
    err = refused(capsys, "sample", "--pipeline", controlled, *options, "--control", "a.png,b.png")
    assert "--control=a.png,b.png names 2 files for 1 ControlNet" in err


def test_half_precision(folder, elsewhere, capsys):
    options = ["--sampler", "ddim", "--steps", 2, "--num_samples", 1]
    run(capsys, "sample", folder, *options, "--out", "whole.npz")
    run(capsys, "sample", folder, *options, "--dtype", "bfloat16", "--out", "half.npz")
    whole, half = (np.load(f"{name}.npz")["x"].astype(float) for name in ("whole", "half"))
    assert np.abs(whole - half).max() > 0
    assert np.abs(whole - half).mean() < 20


def test_what_is_no_pipeline_is_refused(folder, elsewhere, tmp_path, capsys):
    err = refused(capsys, "sample", "--pipeline", folder, "--workdir", "runs/digits")
    assert "a pipeline takes the place of a run folder" in err
    for beside in ("--classifier_scale", "2"), ("--autoguidance", "ema/0.5.safetensors"):
        assert "takes the place of a run folder" in refused(capsys, "sample", "--pipeline", folder, *beside)
    err = refused(capsys, "sample", "--pipeline", folder, "--labels", "1")
    assert "--labels=1: the model is told captions, and has no classes" in err
    assert "does not exist" in refused(capsys, "sample", "--pipeline", "./nothing")
    assert "--dtype = 'half': needs one of float32, float16, bfloat16" in refused(
        capsys, "sample", "--pipeline", folder, "--dtype", "half"
    )
    err = refused(capsys, "sample", "--pipeline", folder, "--image_size", "17")
    assert "--image_size = (17, 17): its networks take multiples of 2" in err
    assert "needs the side of the images" in refused(capsys, "sample", "--pipeline", folder, "--image_size", "big")
    shutil.copytree(folder, tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "text_encoder")
    err = refused(capsys, "sample", "--pipeline", tmp_path / "broken")
    assert "lacks the part text_encoder (CLIPTextModel)" in err
    assert err.count("\n") == 1
    assert "--pipeline is for --mode" in refused(capsys, "likelihood", "--pipeline", folder)
    assert "has no ControlNet; name the folder of one by --controls" in refused(
        capsys, "sample", "--pipeline", folder, "--control", "a.png"
    )
    assert not (elsewhere / "runs").exists()


def test_sizes_are_height_and_width(folder, elsewhere, capsys):
    result = run(capsys, "sample", folder, "--sampler", "ddim", "--steps", 1, "--num_samples", 1, "--image_size",
                 "16,24")  # fmt: skip
    assert np.load(elsewhere / result["numbers"])["x"].shape == (1, 3, 16, 24)


def test_updates_are_merged_at_load(folder, elsewhere, capsys):
    from tests.sde.pretrained.pipelines.test_additions import updates

    file = updates(stable_diffusion(), elsewhere / "lora.safetensors", "kohya")
    options = ["--sampler", "ddim", "--steps", 2, "--num_samples", 1]
    run(capsys, "sample", folder, *options, "--out", "plain.npz")
    run(capsys, "sample", folder, *options, "--lora", f"{file}:0.6,{file}:-0.6", "--out", "same.npz")
    run(capsys, "sample", folder, *options, "--lora", file, "--out", "other.npz")
    plain, same, other = (np.load(f"{name}.npz")["x"].astype(float) for name in ("plain", "same", "other"))
    assert np.abs(plain - same).max() <= 1
    assert np.abs(plain - other).max() > 1


def test_updates_of_a_pipeline_are_trained(folder, elsewhere, capsys):
    (elsewhere / "data").mkdir()
    for seed in range(10):
        picture(elsewhere / "data" / f"{seed}.png", seed, 20)
        (elsewhere / "data" / f"{seed}.txt").write_text(("a cat", "b, c")[seed % 2])
    options = {"training.batch_size": 4, "training.checkpoint_every": 1, "training.warmup_steps": 1,
               "training.sample_every": 9, "training.lr": 0.05, "training.lr_decay": "none",
               "training.power_ema_stds": "()", "data.root": "data", "data.test_fraction": 0.2,
               "data.conditions": "('text',)", "model.lora_rank": 2, "model.lora_targets": "attention"}  # fmt: skip
    command = ["--mode", "train", "--device", "cpu", "--workdir", "style",
               *(f"--config.{key}={value}" for key, value in options.items())]  # fmt: skip
    status, _, err = call(capsys, *command, "--init", folder, "--config.training.steps=1")
    assert status == 0, err
    status, _, err = call(capsys, *command, "--config.training.steps=2")
    assert status == 0, err
    names = [*load_file("style/model.safetensors")]
    assert names
    assert all(".attn" in name and name.endswith(("lora_A.weight", "lora_B.weight")) for name in names)
    drawing = ["--device", "cpu", "--sampler", "ddim", "--steps", 2, "--num_samples", 2, "--prompt", "a cat"]
    status, _, err = call(capsys, "--mode", "sample", "--workdir", "style", *drawing, "--out", "own.npz")
    assert status == 0, err
    run(capsys, "sample", folder, *drawing[2:], "--lora", "style", "--out", "merged.npz")
    run(capsys, "sample", folder, *drawing[2:], "--out", "plain.npz")
    own, merged, plain = (np.load(f"{name}.npz")["x"].astype(float) for name in ("own", "merged", "plain"))
    assert np.abs(own - merged).max() <= 1
    assert np.abs(own - plain).max() > 1
    assert disagreements(capsys, "style") == []
    shutil.copytree("style", "other")
    change_config(Path("other"), "model", "lora_alpha", 1.0)
    assert disagreements(capsys, "other") == ["lora.alpha"]
    status, result, err = call(capsys, "--mode", "export", "--format", "lora", "--workdir", "style")
    assert status == 0, err
    run(capsys, "sample", folder, *drawing[2:], "--lora", result["folder"], "--out", "exported.npz")
    assert np.abs(np.load("exported.npz")["x"].astype(float) - own).max() <= 1


def test_training_on_a_pipeline_is_of_updates_alone(folder, elsewhere, capsys):
    (elsewhere / "data").mkdir()
    for seed in range(10):
        picture(elsewhere / "data" / f"{seed}.png", seed)
    err = refused(capsys, "train", "--init", folder, "--workdir", "all", "--config.data.root=data")
    assert "is a pipeline, of which low-rank updates are trained alone: add --config.model.lora_rank=8" in err
