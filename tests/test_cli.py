"""The command line as a user meets it: every mode and sampler from one small run, and a sentence for every mistake."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import main
from samplers import SAMPLERS
from sde.checkpoint import Checkpoints

SMALL = ["--config.training.steps=60", "--config.training.batch_size=64", "--config.training.checkpoint_every=30",
         "--config.training.sample_every=30", "--config.training.log_every=10", "--config.classifier.steps=30",
         "--config.model.network.width=16", "--config.model.network.layers=1"]  # fmt: skip


def call(capsys, *arguments):
    """Exit status, the last line as JSON where it is, and the error output."""
    status = main.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    last = out.strip().splitlines()[-1] if out.strip() else ""
    return status, json.loads(last) if last.startswith("{") else None, err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "points"
    assert main.main(["--mode", "train", "--config", "points", "--workdir", str(folder), *SMALL]) == 0
    assert main.main(["--mode", "train_classifier", "--workdir", str(folder)]) == 0
    return folder


def test_run_folder(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"config.json", "model.safetensors", "classifier.safetensors", "checkpoints", "metrics.jsonl", "curves.png",
            "samples"} <= names  # fmt: skip
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [10, 20, 30, 40, 50, 60]
    assert [line["step"] for line in lines if "held_out_loss" in line] == [30, 60]
    assert (trained / "samples" / "train-0000030.png").exists()
    assert torch.load(Checkpoints(trained / "checkpoints", "denoiser").paths()[0], weights_only=True)["step"] == 60


@pytest.mark.parametrize("guidance", [[], ["--guidance_scale", 2], ["--guidance_scale", 0, "--classifier_scale", 1.5]])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler(trained, tmp_path, capsys, name, guidance):
    status, result, _ = call(capsys, "--mode", "sample", "--workdir", trained, "--sampler", name, "--num_samples", 6,
                             "--labels", "0,1,1", "--out", tmp_path / "s", *guidance,
                             *([] if name == "ode" else ["--steps", 4]))  # fmt: skip
    assert status == 0
    assert result["sampler"] == name
    assert result["nfe"] >= 5
    with Image.open(tmp_path / "s.png") as image:
        image.load()
    numbers = np.load(tmp_path / "s.npz")
    assert numbers["x"].shape == (6, 2)
    assert np.isfinite(numbers["x"]).all()
    assert numbers["labels"].tolist() == [0, 1, 1, 0, 1, 1]
    assert len(set(numbers["seeds"].tolist())) == 6


def test_options_of_a_sampler(trained, tmp_path, capsys):
    def draw(*options):
        assert call(capsys, "--mode", "sample", "--workdir", trained, "--num_samples", 3, "--steps", 3, "--out",
                    tmp_path / "s", "--sampler", "pc", *options)[0] == 0  # fmt: skip
        return np.load(tmp_path / "s.npz")["x"]

    plain = draw()
    assert np.array_equal(plain, draw("--config.sampler.snr=0.16"))
    assert not np.allclose(plain, draw("--config.sampler.snr=0.3"))
    assert not np.allclose(plain, draw("--config.sampler.predictor=ddim"))
    assert not np.allclose(plain, draw("--grid", "karras"))
    assert not np.allclose(plain, draw("--seed", 1))


def test_likelihood(trained, capsys):
    base = ["--mode", "likelihood", "--workdir", trained, "--num_samples", 40]
    status, result, _ = call(capsys, *base)
    assert status == 0
    assert (result["density"], result["trace"], result["num_samples"]) == ("p(x)", "exact", 40)
    assert np.isfinite(result["nats"])
    assert result["stderr"] > 0
    assert "bits_per_dim" not in result, "continuous data have nats"
    assert call(capsys, *base, "--labels", "data")[1]["density"] == "p(x | y)"
    assert call(capsys, *base, "--probes", 3)[1]["trace"] == "3 probes"
    status, _, err = call(capsys, *base, "--guidance_scale", 2)
    assert status == 2
    assert "--guided_likelihood" in err
    assert (
        call(capsys, *base, "--guidance_scale", 2, "--guided_likelihood", "--labels", "data")[1]["density"] == "guided"
    )


def test_bits_per_dimension_of_quantised_data(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 4, (400, 3)))
    run = ["--workdir", tmp_path / "run"]
    data = [f"--config.data.root={tmp_path / 'x.npy'}", "--config.data.levels=4"]
    assert call(capsys, "--mode", "train", "--config", "points", *run, *SMALL, *data)[0] == 0
    result = call(capsys, "--mode", "likelihood", *run)[1]
    assert result["num_samples"] == 40
    assert 1.5 < result["bits_per_dim"] < 4
    assert call(capsys, "--mode", "sample", *run, "--num_samples", 3)[1]["picture"] is None


def test_the_same_command_continues(trained, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    assert main.main(["--mode", "train", "--workdir", str(folder)]) == 0
    assert "already at step 60" in capsys.readouterr().out
    newest = Checkpoints(folder / "checkpoints", "denoiser").paths()[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert main.main(["--mode", "train", "--workdir", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "is damaged" in out
    assert "at step 30" in out
    first, second = ((p / "metrics.jsonl").read_text().splitlines() for p in (trained, folder))
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in second) + '{"step": 6')
    shutil.rmtree(folder / "checkpoints")
    assert main.main(["--mode", "train", "--workdir", str(folder)]) == 0
    second = (folder / "metrics.jsonl").read_text().splitlines()
    losses = [[json.loads(x)["loss"] for x in lines if '"loss"' in x] for lines in (first, second)]
    assert losses[0] == losses[1]
    assert (trained / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


MISTAKES = [
    (["--mode", "smaple"], "did you mean sample"),
    (["--workdir", "x"], "--mode"),
    (["--mode", "sample", "--workdir", "nowhere"], "nowhere has no config.json"),
    (["--mode", "train", "--config", "digit"], "cifar10, digits, mnist, points"),
    (["--mode", "train", "--wrkdir=x"], "wrkdir"),
    (["--mode", "sample", "RUN", "--sampler", "heunn"], "did you mean heun"),
    (["--mode", "sample", "RUN", "--sampler", "ddim", "--config.sampler.eta=2"], "eta = 2"),
    (["--mode", "sample", "RUN", "--sampler", "ddim", "--config.sampler.etaa=1"], "did you mean eta"),
    (["--mode", "sample", "RUN", "--sampler", "pc", "--config.sampler.predictor=dpmpp"], "euler_maruyama"),
    (["--mode", "train", "RUN", "--steps", "5"], "--config.training.steps"),
    (["--mode", "sample", "RUN", "--probes", "5"], "--probes is for --mode likelihood"),
    (["--mode", "sample", "RUN", "--config.sde.beta_max=3"], "only config.sampler can be changed"),
    (["--mode", "train_classifier", "NEW"], "is no run folder"),
    (["--mode", "sample", "RUN", "--grid", "karas"], "did you mean karras"),
    (["--mode", "sample", "RUN", "--steps", "0"], "steps"),
    (["--mode", "sample", "RUN", "--steps", "two"], "two"),
    (["--mode", "sample", "RUN", "--labels", "0,2"], "class 2 is out of range, allowed are 0 to 1"),
    (["--mode", "sample", "RUN", "--labels", "cat"], "0,1,2"),
    (["--mode", "sample", "RUN", "--labels", "none", "--guidance_scale", "2"], "give --labels"),
    (["--mode", "sample", "RUN", "--seed", "-1"], "seed"),
    (["--mode", "sample", "RUN", "--config", "points"], "--config is for --mode train"),
    (["--mode", "sample", "RUN", "--device", "cuda:7"], "--device=cuda:7"),
    (["--mode", "sample", "RUN", "extra"], "unknown argument extra"),
    (["--mode", "likelihood", "RUN", "--split", "valid"], "test or train"),
    (["--mode", "likelihood", "RUN", "--labels", "3"], "needs data"),
    (["--mode", "likelihood", "RUN", "--rtol", "0"], "rtol"),
    (["--mode", "train", "RUN", "--config.training.stepz=3"], "did you mean steps"),
    (["--mode", "train", "RUN", "--config.training.steps=many"], "many"),
    (["--mode", "train", "RUN", "--config.sde.name=vpp"], "did you mean vp"),
    (["--mode", "train", "RUN", "--config.sde.beta_max=10"], "another config.sde"),
    (["--mode", "train", "RUN", "--config", "points", "--config.model.network.width=32"], "another config"),
    (["--mode", "train", "NEW", "--config", "points", "--config.training.weighting=edmm"], "did you mean edm"),
    (["--mode", "train", "NEW", "--config", "points", "--config.training.batch_size=1000000"], "at most 22500"),
    (["--mode", "train", "NEW", "--config", "points", "--config.model.network.depth=3"], "depth"),
    (["--mode", "train", "NEW", "--config", "points", "--config.model.network.width=-1"], "config.model.network"),
    (["--mode", "train", "NEW", "--config", "points", "--config.training.sample_every=0"], "sample_every = 0"),
    (["--mode", "train", "NEW", "--config", "mnist"], "config.data.root = data/mnist does not exist"),
    (["--mode", "train", "NEW", "--config", "digits", "--config.model.network.attention=(5,)"], "resolutions are 8, 4"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_mistakes(trained, tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": ["--workdir", str(trained)], "NEW": ["--workdir", str(tmp_path / "new")]}
    before = sorted(p.name for p in trained.rglob("*"))
    status, _, err = call(capsys, *[part for a in arguments for part in places.get(a, [a])])
    assert status == 2
    sentence = err.strip().splitlines()[-1]
    assert sentence.startswith("error: ")
    assert words in sentence
    assert "Traceback" not in err
    assert before == sorted(p.name for p in trained.rglob("*")), "nothing was written"


def test_not_finite_is_never_a_picture(trained, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    status, _, err = call(capsys, "--mode", "train", "--config", "points", "--workdir", tmp_path / "nan", *SMALL,
                          "--config.training.lr=1e30", "--config.training.clip=0")  # fmt: skip
    assert status == 2
    assert "the loss is not finite in step" in err
    assert not (tmp_path / "nan" / "model.safetensors").exists()
    from safetensors.torch import load_file

    from sde.checkpoint import load_model, save_model
    from tests.test_training import SPEC

    state = load_file(folder / "model.safetensors")
    spec = json.loads(open_metadata(folder / "model.safetensors")["score_sde"])["spec"]
    assert SPEC.keys() == spec.keys()
    state["network.head.bias"][:] = float("nan")
    save_model(folder / "model.safetensors", "denoiser", spec, state)
    assert load_model(folder / "model.safetensors")
    status, _, err = call(capsys, "--mode", "sample", "--workdir", folder, "--out", tmp_path / "bad")
    assert status == 2
    assert "became non-finite in step 1 of" in err
    assert not list(tmp_path.glob("bad*"))


def open_metadata(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()


def test_help(capsys):
    assert main.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(mode in out for mode in main.MODES)
    assert "--guidance_scale" in out
