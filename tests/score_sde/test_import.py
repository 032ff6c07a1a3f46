"""--mode import: a run folder of foreign weights, on which every mode works."""

import json
import pickle
import warnings

import numpy as np
import pytest
import torch

from sde.checkpoint import load_model, save_model
from sde.checkpoint.spec import build_denoiser
from sde.pretrained import load_pretrained
from tests.oracles.foreign import FIXTURES, fixture, relative, told
from tests.oracles.score_sde_file import NCSNPP, SMALL, VE, ours, written
from tests.score_sde.runs import call, untrained

FACTS = SMALL | NCSNPP | {"name": "ncsnpp"}
KEYS = {"sample_euler": "ddim", "sample_heun": "heun", "sample_dpm_2": "dpm2", "sample_lms": "lms",
        "sample_dpmpp_2m": "dpmpp"}  # fmt: skip


def imported(capsys, path, folder, facts, *more):
    """The result of an import into the folder."""
    text = folder.parent / "facts.json"
    text.write_text(json.dumps(facts))
    status, result, err = call(
        capsys, "--mode", "import", "--pretrained", path, "--facts", text, "--workdir", folder, *more
    )
    assert status == 0, err
    return result


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_is_imported(name, capsys, tmp_path):
    found = fixture(name)
    if name.startswith("diffusers"):
        pytest.importorskip("diffusers")
    path, facts = found.folder / FIXTURES[name], told(found)
    result = imported(capsys, path, tmp_path / "run", facts)
    model, wanted = load_model(tmp_path / "run" / "model.safetensors"), load_pretrained(path, facts=facts)
    assert (result["mode"], result["kind"], result["event_shape"]) == ("import", "denoiser", [3, 16, 16])
    assert model.event_shape == (3, 16, 16)
    assert model.transform == wanted.transform
    x, t = found.reference["x"], torch.full((len(found.reference["x"]),), 0.4)
    labels = None if model.num_classes is None else torch.arange(len(x)) % model.num_classes
    with torch.no_grad():
        assert torch.equal(model(x, t, labels), wanted(x, t, labels))
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["data"]["event_shape"] == [3, 16, 16]


@pytest.mark.parametrize("name", ["edm-ncsnpp-uncond", "edm-ddpmpp-cond"])
def test_recorded_samples_of_edm(name, capsys, tmp_path):
    """Through the command line alone: six noise levels of Karras, and the last call's step to none."""
    found = fixture(name)
    imported(capsys, found.folder / FIXTURES[name], tmp_path / "run", {})
    np.save(tmp_path / "start.npy", 80 * found.reference["latents"].numpy())
    labels = ["--labels", ",".join(map(str, found.reference["y"][:2].argmax(1).tolist()))] if "-cond" in name else []
    status, result, err = call(capsys, "--mode", "sample", "--workdir", tmp_path / "run", "--sampler", "heun", "--grid",
                               "karras", "--steps", "5", "--start_state", tmp_path / "start.npy", *labels)  # fmt: skip
    assert (status, err) == (0, "")
    assert result["nfe"] == 11
    with np.load(result["numbers"]) as numbers:
        state, x = torch.from_numpy(numbers["state"]), torch.from_numpy(numbers["x"])
    assert relative(state, found.reference["heun6"]) < 1e-5
    assert torch.equal(x, (127.5 * found.reference["heun6"] + 127.5).round().clamp(0, 255))


@pytest.mark.parametrize("name", ["k-diffusion-image_v1", "k-diffusion-image_transformer_v2"])
def test_recorded_samples_of_k_diffusion(name, capsys, tmp_path):
    found = fixture(name)
    imported(capsys, found.folder / FIXTURES[name], tmp_path / "run", {})
    np.save(tmp_path / "start.npy", found.reference["noise"].numpy())
    model = load_model(tmp_path / "run" / "model.safetensors")
    times = model.sde.t_of_noise_level(found.reference["sigmas"][:-1].double())
    of_class = "in_class_cond" in found.reference
    labels = ["--labels", ",".join(map(str, found.reference["in_class_cond"][:2].tolist()))] if of_class else []
    for key, sampler in KEYS.items():
        status, result, err = call(capsys, "--mode", "sample", "--workdir", tmp_path / "run", "--sampler", sampler,
                                   "--grid", ",".join(map(repr, times.tolist())), "--start_state",
                                   tmp_path / "start.npy", *labels)  # fmt: skip
        assert (status, err) == (0, "")
        with np.load(result["numbers"]) as numbers:
            assert relative(torch.from_numpy(numbers["state"]), found.reference[key]) < 1e-4, sampler


def calm():
    """A network whose flow an adaptive solver follows in a few steps."""
    network = ours(FACTS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 0.1
    return network


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A checkpoint of score_sde, its facts in a file, images, and the run folder that they are imported into."""
    folder = tmp_path_factory.mktemp("foreign")
    written(folder / "checkpoint_1.pth", calm(), FACTS)
    (folder / "facts.json").write_text(json.dumps(FACTS))
    x = np.random.default_rng(0).integers(0, 256, (120, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "images.npz", x=x, labels=np.arange(120) % 2)
    return folder


@pytest.fixture(scope="module")
def run(foreign):
    from score_sde.cli import main

    assert main.main(["--mode", "import", "--pretrained", str(foreign / "checkpoint_1.pth"), "--facts",
                      str(foreign / "facts.json"), "--workdir", str(foreign / "run"),
                      f"--config.data.root={foreign / 'images.npz'}", "--config.data.test_fraction=0.5",
                      ]) == 0  # fmt: skip
    return foreign / "run"


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_what_a_run_folder_gets(weights, foreign, capsys, tmp_path):
    arguments = ("--weights", weights)
    result = imported(capsys, foreign / "checkpoint_1.pth", tmp_path / "run", FACTS, *arguments)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json", "model.safetensors"]
    model = load_model(tmp_path / "run" / "model.safetensors")
    network, twice = calm(), 2 if weights == "ema" else 1
    torch.testing.assert_close(model.network.head.conv.weight, twice * network.head.conv.weight)
    assert result["parameters"] == sum(p.numel() for p in network.parameters())
    assert result["origin"]["weights"] == weights
    assert "Song et al. 2021" in result["origin"]["project"]
    spec = json.loads(_metadata(tmp_path / "run" / "model.safetensors"))["spec"]
    assert spec["origin"] == result["origin"]
    assert (len(spec["levels"]), spec["levels"][0], spec["levels"][-1]) == (40, 1.0, 1e-3)


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()["score_sde"]


MODES = {
    "sample": ("--num_samples=2", "--steps=2"),
    "likelihood": ("--num_samples=2", "--probes=2", "--rtol=0.1", "--atol=0.1"),
    "encode": ("--num_samples=1", "--rtol=0.1", "--atol=0.1"),
    "interpolate": ("--items=0,1", "--frames=2"),
    "edit": ("--num_samples=2", "--start_time=0.3", "--steps=2"),
    "restore": ("--task=inpaint", "--mask=box", "--items=0", "--steps=2"),
    "compare": ("--samplers=ddim", "--nfe=2", "--num_samples=30"),
    "check": ("--num_samples=16",),
    "evaluate": ("--num_samples=50", "--steps=1", "--sampler=ddim"),
    "visualize": ("--num_samples=2", "--steps=2"),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_works_on_it(mode, run, capsys):
    status, result, err = call(capsys, "--mode", mode, "--workdir", run, *MODES[mode])
    assert status == 0, err
    assert result["mode"] == mode


def test_the_grid_of_the_source(run, capsys, tmp_path):
    """Its own times, all or some, are the same as when they are written out; a run without any says so."""

    def sampled(grid, *more):
        status, result, err = call(capsys, "--mode", "sample", "--workdir", run, "--sampler", "ddim", "--num_samples=1",
                                   "--grid", grid, *more)  # fmt: skip
        assert status == 0, err
        with np.load(result["numbers"]) as numbers:
            return result["nfe"], numbers["x"]

    levels = json.loads(_metadata(run / "model.safetensors"))["spec"]["levels"]
    assert sampled("source")[0] == len(levels) == 40
    nfe, x = sampled("source:4")
    # Evenly by their numbers from the data end: 0, 13, 26, 39.
    wanted = sampled(",".join(map(repr, levels[::13])))
    assert (nfe, wanted[0]) == (4, 4)
    assert np.array_equal(x, wanted[1])
    for grid in ("source:1", "source:41", "source:few", "source:"):
        status, _, err = call(capsys, "--mode", "sample", "--workdir", run, "--grid", grid)
        assert (status, err) == (2, f"error: --grid = {grid!r}: needs source, or source:N with N from 2 to 40\n")
    status, _, err = call(capsys, "--mode", "sample", "--workdir", run, "--grid", "source", "--steps", "5")
    assert status == 2
    assert "grid has 39 steps of its own" in err
    untrained(tmp_path / "own", np.zeros((8, 2), np.float32) + np.arange(8)[:, None])
    status, _, err = call(capsys, "--mode", "sample", "--workdir", tmp_path / "own", "--grid", "source")
    assert (status, err.count("\n")) == (2, 1)
    assert "model.safetensors holds no times of a source, as imported weights of a chain do: take one of uniform" in err


def test_the_likelihood_of_items_without_the_classes_that_a_model_needs(capsys, tmp_path):
    """One sentence, whatever --labels says, which works when it is followed; and a file is all that a run needs."""
    network = {"name": "mlp", "width": 4, "layers": 1}
    spec = {"network": network, "event_shape": [2], "num_classes": 3, "sigma_data": 0.5, "sde": {"name": "ve"},
            "parametrization": "edm", "transform": {"shift": [0.0], "scale": [1.0]}, "null_trained": False}  # fmt: skip
    folder, x = tmp_path / "run", np.zeros((8, 2), np.float32) + np.arange(8)[:, None] / 8
    untrained(folder, x)
    values = json.loads((folder / "config.json").read_text())
    values["data"] |= {"dataset": "images", "root": ""}
    (folder / "config.json").write_text(json.dumps(values))
    save_model(folder / "model.safetensors", "denoiser", spec, build_denoiser(spec).state_dict())
    np.savez(tmp_path / "bare.npz", x=x)
    np.savez(tmp_path / "labeled.npz", x=x, labels=np.arange(8) % 3)

    def likelihood(name, *more):
        return call(capsys, "--mode", "likelihood", "--workdir", folder, "--input", tmp_path / name, *more)

    for labels in ((), ("--labels", "none"), ("--labels", "data"), ("--labels", "1")):
        status, _, err = likelihood("bare.npz", *labels)
        assert (status, err.count("\n")) == (2, 1)
        assert "this model knows log p(x | y) alone, which takes the classes of each item, and --input=" in err
    status, result, err = likelihood("labeled.npz", "--rtol=0.1", "--atol=0.1")
    assert (status, err) == (0, "")
    assert (result["density"], result["num_samples"]) == ("p(x | y)", 8)


class Code:
    def __reduce__(self):
        return print, ("ran",)


def refused(capsys, folder, *arguments):
    """The sentence of an import that leaves nothing behind."""
    status, _, err = call(capsys, "--mode", "import", "--workdir", folder, *arguments)
    assert (status, err.count("\n")) == (2, 1), err
    assert not folder.exists() or not [*folder.iterdir()]
    return err


def test_what_is_refused(foreign, capsys, tmp_path):
    folder, whole = tmp_path / "run", (foreign / "checkpoint_1.pth").read_bytes()
    facts, path = ("--facts", foreign / "facts.json"), tmp_path / "file.pth"

    def sentence(*arguments):
        return refused(capsys, folder, *arguments)

    assert "--pretrained is needed" in sentence()
    assert f"{path} does not exist" in sentence("--pretrained", path)
    path.write_bytes(pickle.dumps({"ema": Code()}))
    assert "builtins.print" in sentence("--pretrained", path)
    torch.save({"model": Code()}, path)
    assert "print" in sentence("--pretrained", path)
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut short" in sentence("--pretrained", path)
    path.write_bytes(b"\x80")
    assert "was not loaded" in sentence("--pretrained", path)
    torch.save({"weight": torch.ones(3)}, path)
    assert "is none of score_sde, edm" in sentence("--pretrained", path)
    own = foreign / "checkpoint_1.pth"
    assert "is no file of edm: it looks like one of score_sde" in sentence("--pretrained", own, "--source", "edm")
    assert "--source = 'emd'" in sentence("--pretrained", own, "--source", "emd")
    for key in ("event_shape=(3,8,8)", "num_levels=256"):
        assert f"{key}: the weights say it, and --mode import sets it" in sentence(
            "--pretrained", own, *facts, f"--config.data.{key}"
        )
    assert "--weights = 'average'" in sentence("--pretrained", own, "--weights", "average")
    assert "--facts: image_size (height and width of the images), centered (whether" in sentence("--pretrained", own)
    (tmp_path / "other.json").write_text(json.dumps(FACTS | {"nf": 16}))
    assert "nf = 16, but the file has 8" in sentence("--pretrained", own, "--facts", tmp_path / "other.json")
    (tmp_path / "other.json").write_text(json.dumps(FACTS | {"colour": 16}))
    assert "'colour' is no option" in sentence("--pretrained", own, "--facts", tmp_path / "other.json")
    (tmp_path / "other.json").write_text("[1")
    assert "--facts=" in sentence("--pretrained", own, "--facts", tmp_path / "other.json")
    content = torch.load(own)
    torch.save({"model": content["model"]}, path)
    assert "--weights = 'ema': the file has no average, take 'raw'" in sentence("--pretrained", path, *facts)
    gone = next(name for name in content["model"] if name.endswith(".Conv_1.bias"))
    del content["model"][gone]
    torch.save(content, path)
    assert f"the file lacks {gone.removeprefix('module.')} (here " in sentence(
        "--pretrained", path, *facts, "--weights", "raw"
    )


def test_a_run_is_not_written_over(foreign, run, capsys):
    before = (run / "model.safetensors").read_bytes()
    status, _, err = call(capsys, "--mode", "import", "--pretrained", foreign / "checkpoint_1.pth", "--facts",
                          foreign / "facts.json", "--workdir", run)  # fmt: skip
    assert status == 2
    assert "holds a run already" in err
    assert (run / "model.safetensors").read_bytes() == before


UNITS = {"shift": [127.5], "scale": [127.5], "levels": 256}


def of_images(folder, transform, num_classes):
    """Write a small model of images into a folder."""
    spec = {"network": {"name": "mlp", "width": 4, "layers": 1}, "event_shape": [3, 16, 16]}
    spec |= {"num_classes": num_classes, "sigma_data": 0.5, "sde": {"name": "ve"}, "parametrization": "edm"}
    spec |= {"transform": transform, "null_trained": True}
    folder.mkdir(exist_ok=True)
    save_model(folder / "model.safetensors", "denoiser", spec, build_denoiser(spec).state_dict())


def test_a_classifier_goes_to_a_model_of_its_units_and_classes(capsys, tmp_path):
    """To one of another process, too; and there it guides."""
    found, folder = fixture("guided-diffusion-classifier"), tmp_path / "run"
    (tmp_path / "facts.json").write_text(json.dumps(found.about["kwargs"]))
    given = ("--pretrained", found.folder / "classifier.pt", "--facts", tmp_path / "facts.json")

    def of_model(transform, num_classes):
        of_images(folder, transform, num_classes)
        return call(capsys, "--mode", "import", "--workdir", folder, *given)

    untrained(folder, np.zeros((8, 2), np.float32) + np.arange(8)[:, None])
    units, whole = UNITS, {"shift": [0.5], "scale": [255.0], "levels": 256}
    assert "in the same units" in of_model(whole, 3)[2]
    assert "knows 3 classes, the model in" in of_model(units, 5)[2]
    status, result, err = of_model(units, None)
    assert (status, result["kind"]) == (0, "classifier"), err
    status, result, err = call(capsys, "--mode", "sample", "--workdir", folder, "--num_samples", "2", "--steps", "2",
                               "--classifier_scale", "1", "--labels", "0,2")  # fmt: skip
    assert status == 0, err
    with np.load(result["numbers"]) as numbers:
        assert np.isfinite(numbers["x"]).all()


def test_a_classifier_that_is_refused_is_not_warned_of(capsys, tmp_path):
    """Without a schedule one is assumed, which is said where the classifier is taken, and not before a refusal."""
    found, folder = fixture("guided-diffusion-classifier"), tmp_path / "run"
    (tmp_path / "facts.json").write_text(json.dumps(found.about["kwargs"]))
    given = ("--pretrained", found.folder / "classifier.pt", "--facts", tmp_path / "facts.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "import the model that it is to guide" in refused(capsys, folder, *given)
    of_images(folder, UNITS, None)
    with pytest.warns(UserWarning, match="noise_schedule and diffusion_steps are not told"):
        assert call(capsys, "--mode", "import", "--workdir", folder, *given)[0] == 0


def test_variance_exploding_weights_sample(capsys, tmp_path):
    """Images that the network sees in [0, 1], on VESDE: integers come out."""
    facts = FACTS | VE
    written(tmp_path / "checkpoint_1.pth", ours(facts), facts)
    imported(capsys, tmp_path / "checkpoint_1.pth", tmp_path / "run", facts)
    status, result, err = call(capsys, "--mode", "sample", "--workdir", tmp_path / "run", "--num_samples", "2",
                               "--steps", "2", "--sampler", "pc")  # fmt: skip
    assert status == 0, err
    with np.load(result["numbers"]) as numbers:
        assert np.array_equal(numbers["x"], numbers["x"].round())
        assert "state" not in numbers
