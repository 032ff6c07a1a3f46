"""--mode evaluate as a user meets it, on real digits and on points."""

import hashlib
import json
import sys
import types
import warnings
from importlib.metadata import version

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from score_sde.cli import main
from score_sde.config.config import read_run_config, resolve
from score_sde.evaluation.features import Extractor, extractor
from score_sde.evaluation.judge import SETTINGS
from score_sde.kinds.image import byte_images
from score_sde.metrics.metric import METRICS
from score_sde.metrics.splits import DIVISIONS
from score_sde.run.folder import Run
from sde.data.transform import Transform
from sde.distributed.world import World
from sde.networks.efficientnet_lite import load_efficientnet_lite
from tests.oracles.efficientnet_lite import tensors
from tests.score_sde.runs import untrained

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:DeprecationWarning"),
    pytest.mark.xdist_group("evaluate"),
]
SMALL = ["--config.training.steps=2", "--config.training.checkpoint_every=2", "--config.training.sample_every=2"]
QUICK = ["--subsamples", "3"]
FEW = ["--metrics", "frechet,recall", *QUICK]


@pytest.fixture(scope="module", autouse=True)
def quickly():
    """Digits need no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETTINGS, "steps", 200)
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run folder of digits, hardly trained, with files of real items as samples."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    network = ["--config.model.network.channels=8", "--config.model.network.attention_resolutions=()"]
    assert main.main(["--mode", "train", "--config", "digits", "--workdir", str(folder), *SMALL, *network]) == 0
    batches = [part.batch(torch.arange(len(part))) for part in opened(folder).data()]
    training, held_out = ((x, cond["labels"]) for x, cond in batches)
    np.savez(folder / "training.npz", x=training[0], labels=training[1])
    np.savez(folder / "fresh.npz", x=training[0][::4], labels=training[1][::4])
    np.savez(folder / "held_out.npz", x=held_out[0], labels=held_out[1])
    np.savez(folder / "wrong.npz", x=training[0][::4], labels=(training[1][::4] + 1) % 10)
    noise = np.random.default_rng(0).integers(0, 17, (200, 1, 8, 8))
    np.savez(folder / "noise.npz", x=noise, labels=np.arange(200) % 10)
    np.savez(folder / "threes.npz", x=training[0][training[1] == 3], labels=training[1][training[1] == 3])
    np.savez(folder / "few.npz", x=noise[:49])
    np.savez(folder / "signed.npz", x=noise / 8 - 1)
    np.savez(folder / "last.npz", x=np.moveaxis(np.repeat(noise, 3, 1), 1, -1))
    np.savez(folder / "flat.npz", x=noise[:, 0])
    np.savez(folder / "nan.npz", x=np.where(np.arange(200) == 17, np.nan, 1.0).reshape(-1, 1, 1, 1) * noise)
    np.savez(folder / "labels.npz", x=noise, labels=np.full(200, 10))
    np.savez(folder / "scales.npz", x=noise[None], scales=np.array([1.0]))
    np.savez(folder / "words.npz", x=noise, labels=np.full(200, "three"))
    np.savez(folder / "short.npz", x=noise, labels=np.full(150, 3))
    (folder / "notes.txt").write_text("no numbers")
    (folder / "broken.npz").write_bytes(b"PK no archive")
    return folder


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "points"
    network = ["--config.model.network.width=16", "--config.model.network.layers=1", "--config.data.test_fraction=0.01"]
    assert main.main(["--mode", "train", "--config", "points", "--workdir", str(folder), *SMALL, *network]) == 0
    return folder


def opened(folder, world=None):
    return Run(folder, resolve(read_run_config(folder), []), torch.device("cpu"), world or World())


def call(capsys, folder, *arguments):
    """Exit status, what was printed, the last line as JSON, and the errors."""
    status = main.main(["--mode", "evaluate", "--workdir", str(folder), *map(str, arguments)])
    out, err = capsys.readouterr()
    last = out.strip().splitlines()[-1] if out.strip() else ""
    return status, out, json.loads(last) if last.startswith("{") else None, err


def test_samples_of_a_run(plane, tmp_path, capsys):
    status, out, result, err = call(capsys, plane, "--num_samples", 60, "--steps", 2, *QUICK)
    assert status == 0, err
    assert "60 samples against 250 test items, 2 features (data):" in out
    assert all(metric.title in out for metric in METRICS.values())
    assert "worse than real items" in out, "two steps of training are not enough"
    record = json.loads((plane / "evaluation.json").read_text())
    file = plane / "evaluations" / "000001-heun.npz"
    assert record["samples"] == {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert record["items"] == {"samples": 60, "real": 250, "others": 24750, "training": 24750}
    reference = record["values"]["energy"]["reference"]
    assert (reference["n"], reference["m"], len(reference["values"])) == (60, 250, DIVISIONS)
    assert record["settings"]["steps"] == 2
    assert record["versions"]["torch"] == version("torch")
    assert record["extractor"]["features"] == 2
    assert record["values"]["frechet"]["value"] == result["frechet"]
    assert np.load(file)["x"].shape == (60, 2)
    assert record["weights"]["file"] == str(plane / "model.safetensors")
    again = call(capsys, plane, "--samples_file", file, *QUICK, "--out", tmp_path / "r")[2]
    told = {"record": "", "settings": {}}
    assert again | told == result | told
    assert result["settings"]["num_samples"] == "60"
    assert again["settings"]["samples_file"] == str(file)
    assert json.loads((tmp_path / "r.json").read_text())["weights"] is None, "which drew the file is not known"
    call(capsys, plane, "--num_samples", 60, "--steps", 3, "--metrics", "energy", "--out", tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text())["samples"]["file"] == str(tmp_path / "s.npz")
    assert record["samples"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest(), "the first are still there"


def test_every_evaluation_is_kept(plane, tmp_path, capsys):
    before = {path: path.read_bytes() for path in (plane / "evaluations").glob("*")}
    one_step = ["--num_samples", 60, "--steps", 1, "--metrics", "energy", *QUICK]
    with pytest.warns(UserWarning, match="times as far as the data: are they in other units"):
        drawn = call(capsys, plane, *one_step)[2]["record"]
    again = ["--samples_file", drawn.replace(".json", ".npz"), "--metrics", "kernel", *QUICK]
    with pytest.warns(UserWarning, match="in other units"):
        given = call(capsys, plane, *again)[2]
    names = sorted(path.name for path in (plane / "evaluations").glob("*") if path not in before)
    assert [name[6:] for name in names] == ["-heun.json", "-heun.npz", "-given.json"]
    assert int(names[2][:6]) == int(names[0][:6]) + 1
    assert all(path.read_bytes() == content for path, content in before.items())
    assert (plane / "evaluation.json").read_text() == (plane / "evaluations" / names[2]).read_text(), "the latest"
    latest = (plane / "evaluation.json").read_bytes()
    assert given["record"] == str(plane / "evaluations" / names[2])
    with pytest.warns(UserWarning, match="in other units"):
        call(capsys, plane, *again, "--out", tmp_path / "mine")
    assert (plane / "evaluation.json").read_bytes() == latest
    assert call(capsys, plane, "--num_samples", 60, "--subsamples", 1)[0] == 2
    assert sorted(path.name for path in (plane / "evaluations").glob("*") if path not in before) == names


def test_real_items_pass_for_samples(digits, capsys):
    _, out, _, err = call(capsys, digits, "--samples_file", digits / "fresh.npz", "--features", "classifier", *FEW)
    assert "too few" not in out, err
    record = json.loads((digits / "evaluation.json").read_text())["values"]
    assert record["accuracy"]["value"] > 0.95
    assert record["accuracy"]["reference"]["value"] > 0.95
    assert record["memorization"]["copies"]["value"] == 1
    assert "equal to a training item: more than new ones" in out
    found = record["frechet"]["reference"]
    assert found["low"] < record["frechet"]["value"] < found["high"]
    assert record["frechet"]["reading"].startswith("not told from real items; it would tell noise of")
    assert record["frechet"]["power"]["shrinkage"] <= 0.2
    assert call(capsys, digits, "--samples_file", digits / "wrong.npz", *FEW)[2]["accuracy"] < 0.1


def test_noise_does_not(digits, capsys):
    _, out, result, _ = call(capsys, digits, "--samples_file", digits / "noise.npz", *QUICK)
    assert result["precision"] == result["coverage"] == 0
    assert result["two_sample_neighbors"] > 0.9
    assert out.count("worse than real items") >= 8


def test_one_class_is_held_against_its_own(digits, capsys):
    """Too few of them for a distance, which is said, and no distance from items of all classes is told."""
    _, out, result, _ = call(capsys, digits, "--samples_file", digits / "threes.npz", *QUICK)
    few = int((opened(digits).data()[1].labels == 3).sum())
    assert f"{few} of 360 real items are in the parts of the classes asked for, and count" in out
    assert "energy" not in result
    assert f"left out: energy distance: 146 samples and {few} real items are too few" in out
    assert "left out: memorization: " in out
    assert result["accuracy"] > 0.9


def test_a_judge_that_knows_little_is_not_used(digits, capsys, monkeypatch):
    monkeypatch.setitem(SETTINGS, "steps", 1)
    _, out, result, _ = call(capsys, digits, "--samples_file", digits / "fresh.npz", "--metrics", "energy", *QUICK)
    assert "accuracy" not in result
    assert "left out: accuracy of the class: the classifier of real items is right about" in out
    assert "(mean over 10 classes), and below 55.0% it judges nobody" in out
    status, _, _, err = call(capsys, digits, "--samples_file", digits / "fresh.npz", "--features", "classifier")
    assert status == 2
    assert "--features=classifier: the classifier of real items is right about" in err


def test_samples_without_a_class_are_not_judged(digits, tmp_path, capsys):
    """Those of --labels none, or of a batch in which some rows have one."""
    x, labels = (np.load(digits / "fresh.npz")[name] for name in ("x", "labels"))
    half = np.arange(len(x)) % 2 == 0
    for name, asked in (("half", np.where(half, labels, -1)), ("none", np.full(len(x), -1))):
        np.savez(tmp_path / f"{name}.npz", x=x, labels=asked)
    np.savez(tmp_path / "known.npz", x=x[half], labels=labels[half].astype(np.uint64))
    run = ["--metrics", "energy, recall", *QUICK]
    some, known, none = (
        call(capsys, digits, "--samples_file", tmp_path / f"{name}.npz", *run, "--out", tmp_path / f"of-{name}")[2]
        for name in ("half", "known", "none")
    )
    assert some["accuracy"] == known["accuracy"]
    assert "accuracy" not in none
    assert (tmp_path / "of-none.json").exists()


def test_the_items_themselves_are_noticed(digits, capsys):
    with pytest.warns(UserWarning, match="100% of the samples equal an item that they are held against.*same files"):
        call(capsys, digits, "--samples_file", digits / "held_out.npz", *FEW)
    with pytest.warns(UserWarning, match="same files"):
        call(capsys, digits, "--samples_file", digits / "training.npz", "--split", "train", *FEW)


class Pooled(nn.Module):
    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x.float() / 255, 4).flatten(1)


class Told(nn.Module):
    def forward(self, x, return_features: bool = False):
        return x.float().flatten(1)[:, :5] if return_features else x.float().flatten(1)[:, :7]


def test_values_do_not_depend_on_the_batch(digits, tmp_path, capsys):
    torch.jit.script(Pooled()).save(tmp_path / "pooled.pt")
    names = ("frechet", "density")
    for features, tolerance in (("data", 0), ("classifier", 1e-10), (str(tmp_path / "pooled.pt"), 1e-5)):
        run = ["--samples_file", digits / "fresh.npz", "--features", features, "--metrics", ",".join(names)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "--features=.* reads colors")
            results = [call(capsys, digits, *run, *QUICK, "--batch_size", size)[2] for size in (7, 256)]
        for other in results[1:]:
            assert [other[name] for name in names] == pytest.approx([results[0][name] for name in names], rel=tolerance)


def test_a_network_of_ones_own(digits, tmp_path, capsys):
    torch.jit.script(Pooled()).save(tmp_path / "pooled.pt")
    run = opened(digits)
    training, held_out = run.data()
    with pytest.warns(UserWarning, match="gray images are repeated to 3 channels"):
        found = extractor(run, str(tmp_path / "pooled.pt"), training)
    x = held_out.batch(torch.arange(9))[0]
    features = found(World(), lambda rows: x[rows], 9, 4).features
    assert (features.shape, features.dtype) == ((9, 48), torch.float64)
    expected = nn.functional.adaptive_avg_pool2d((x * 255 / 16).round() / 255, 4).flatten(1)
    torch.testing.assert_close(features[:, :16], expected.double(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(features[:, 32:], features[:, :16], rtol=0, atol=0)
    assert found.digest == hashlib.sha256((tmp_path / "pooled.pt").read_bytes()).hexdigest()
    torch.jit.script(Told()).save(tmp_path / "told.pt")
    with pytest.warns(UserWarning, match="gray"):
        assert extractor(run, str(tmp_path / "told.pt"), training)(
            World(), lambda rows: x[rows], 9, 4
        ).features.shape == (9, 5)


def test_features_of_weights_in_a_file(digits, tmp_path):
    save_file(tensors(), tmp_path / "lite.safetensors")
    run = opened(digits)
    training, held_out = run.data()
    with pytest.warns(UserWarning, match="gray images are repeated to 3 channels"):
        found = extractor(run, str(tmp_path / "lite.safetensors"), training)
    x = held_out.batch(torch.arange(5))[0]
    features = found(World(), lambda rows: x[rows], 5, 2).features
    colors = (x * 255 / 16).round().expand(-1, 3, -1, -1)
    expected = load_efficientnet_lite(tmp_path / "lite.safetensors")(colors)
    torch.testing.assert_close(features, expected.double(), rtol=1e-5, atol=1e-5)
    save_file({"x": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"--features=.*other.safetensors: there is no tensor _conv_stem.weight"):
        extractor(run, str(tmp_path / "other.safetensors"), training)


def test_equal_items_are_counted():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [5.0, 6.0], [1.0, 2.0]])
    data = Extractor("data", "", lambda part: part, torch.device("cpu"))
    all_of, some = data(World(), lambda rows: x[rows], 5, 2), data(World(), lambda rows: x[1:4][rows], 3, 3)
    assert (len(all_of), all_of.repeated(), some.repeated()) == (5, 3, 0)
    assert (all_of.found_in(some), some.found_in(all_of)) == (5, 3)
    part = all_of.rows(torch.tensor([1, 3]))
    assert (part.found_in(all_of.rows(torch.tensor([0, 2]))), part.features.tolist()) == (0, [[3, 4], [5, 6]])


def test_inception_is_never_fetched_unasked(digits, tmp_path, monkeypatch):
    """With a stand-in of torch-fidelity's class, whose weights are fetched where it is given no path."""
    training = opened(digits).data()[0]
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match=r"needs torch-fidelity.*pip install 'score-sde\[inception\]'"):
        extractor(opened(digits), "inception", training)
    asked = []

    class Inception(nn.Module):
        def __init__(self, name, features_list, feature_extractor_weights_path=None):
            super().__init__()
            asked.append((features_list, feature_extractor_weights_path))
            path.parent.mkdir(exist_ok=True)
            path.touch()

        def forward(self, x):
            assert x.dtype == torch.uint8
            return (x.float().flatten(1)[:, :6],)

    found = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    found.FeatureExtractorInceptionV3 = Inception
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, found.__name__, found)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    with pytest.raises(ValueError, match="nothing is downloaded unasked: add --download"):
        extractor(opened(digits), "inception", training)
    assert asked == []
    for download in (True, False):
        with pytest.warns(UserWarning, match="gray"):
            network = extractor(opened(digits), "inception", training, download)
    assert asked == [(["2048"], None), (["2048"], str(path))]
    x = training.batch(torch.arange(5))[0]
    assert network(World(), lambda rows: x[rows], 5, 2).features.shape == (5, 6)


def test_bytes():
    x = torch.tensor([0.0, 128.0, 255.0]).view(1, 3, 1, 1)
    assert byte_images(Transform.of_levels(256), (3, 1, 1), "f")(x).flatten().tolist() == [0, 128, 255]
    for transform, shape, words in (
        (Transform(), (3, 8, 8), "continuous"),
        (Transform.of_levels(256), (4, 8, 8), "1 or 3 channels"),
        (Transform.of_levels(256), (12,), "1 or 3 channels"),
    ):
        with pytest.raises(ValueError, match=words):
            byte_images(transform, shape, "f")


def test_the_classifier_is_kept(digits, capsys):
    training = opened(digits).data()[0]
    first = extractor(opened(digits), "classifier", training)
    file = next((digits / "features").glob("classifier-*.safetensors"))
    made = file.stat().st_mtime_ns
    assert extractor(opened(digits), "classifier", training).digest == first.digest
    assert file.stat().st_mtime_ns == made
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"is damaged .*delete it"):
        extractor(opened(digits), "classifier", training)
    file.write_bytes(whole)


MISTAKES = [
    (["--samples_file", "few.npz"], "few.npz has 49 items: no interval can be trusted for fewer than 50"),
    (["--samples_file", "signed.npz"], "fractions from -1 to 1, the data integers from 0 to 16"),
    (["--samples_file", "last.npz"], "shape (8, 8, 3), the data have (1, 8, 8)"),
    (["--samples_file", "flat.npz"], "shape (8, 8), the data have (1, 8, 8)"),
    (["--samples_file", "nan.npz"], "1 of 200 items contain NaN or infinity (first: 17)"),
    (["--samples_file", "labels.npz"], "label 10 is out of range: allowed are 0 to 9 (are they 1-based?)"),
    (["--samples_file", "scales.npz"], "several scales"),
    (["--samples_file", "broken.npz"], "not a readable .npz"),
    (["--samples_file", "words.npz"], "labels of type <U5 and shape (200,): needs 200 integers"),
    (["--samples_file", "short.npz"], "labels of type int64 and shape (150,): needs 200 integers"),
    (["--samples_file", "samples"], "--samples_file=samples is a folder: name a file in it"),
    (["--samples_file", "notes.txt"], "file (it holds no arrays of numbers;"),
    (["--samples_file", "nowhere.npz"], "nowhere.npz does not exist"),
    (["--samples_file", "noise.npz", "--steps", "5"], "--steps: --samples_file names samples that are drawn already"),
    (["--samples_file", "noise.npz", "--guidance_scale", "2"], "--guidance_scale: --samples_file names"),
    (["--samples_file", "noise.npz", "--sampler", "pc"], "--sampler or its options: --samples_file names"),
    (["--samples_file", "noise.npz", "--config.sampler.churn=0.5"], "--sampler or its options: --samples_file names"),
    (["--samples_file", "noise.npz", "--num_samples", "60", "--noise", "brownian"],
     "--noise and --num_samples: --samples_file"),
    (["--samples_file", "noise.npz", "--weights", "./model.safetensors"], "--weights: --samples_file names"),
    (["--num_samples", "20"], "--num_samples=20: no interval can be trusted for fewer than 50"),
    (["--samples_file", "noise.npz", "--features", "incepton"], "or a TorchScript file that exists"),
    (["--samples_file", "noise.npz", "--features", "broken.npz"], "is no TorchScript file"),
    (["--samples_file", "noise.npz", "--download"], "--download is for --features inception"),
    (["--samples_file", "noise.npz", "--metrics", "fid"], "needs one of frechet, kernel"),
    (["--samples_file", "noise.npz", "--metrics", "frechet", "--subsamples", "1"], "subsamples"),
    (["--samples_file", "noise.npz", "--split", "valid"], "test or train"),
    (["--num_samples", "60", "--metrics", "frechet", "--steps", "1"], "60 samples and 360 real items are too few"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_mistakes(digits, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(digits)
    status, _, _, err = call(capsys, digits, *arguments)
    assert status == 2
    sentence = err.strip().splitlines()[-1]
    assert sentence.startswith("error: ")
    assert words in sentence


def test_what_so_few_items_do_not_allow_is_left_out(digits, capsys):
    np.savez(digits / "sixty.npz", x=np.load(digits / "noise.npz")["x"][:60])
    status, out, result, _ = call(capsys, digits, "--samples_file", digits / "sixty.npz", *QUICK)
    assert status == 0
    assert "frechet" not in result
    assert (
        "left out: Frechet distance: 60 samples and 360 real items are too few for 64 features, it needs at least 65"
        in out
    )


def no_constant(text):
    raise AssertionError(f"{text} is no JSON")


@pytest.mark.parametrize(("x", "options"), [
    (np.full((240, 1, 4, 4), 3, np.uint8), ["--config.data.num_levels=8"]),
    (np.repeat(np.arange(2), 120)[:, None].astype(np.float32), []),
    (np.sign(np.random.default_rng(0).normal(size=(240, 1, 1, 1))).astype(np.float32), []),
], ids=["constant", "two points", "one pixel of two values"])  # fmt: skip
def test_degenerate_data_have_numbers(tmp_path, generator, capsys, x, options):
    """No NaN, in the table or in JSON; items held against themselves are not told."""
    run = untrained(tmp_path / "run", x, np.zeros(len(x), np.int64), *options)
    np.savez(tmp_path / "real.npz", x=run.data()[0].batch(torch.randperm(180, generator=generator)[:100])[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        status, out, _, err = call(capsys, run.folder, "--samples_file", tmp_path / "real.npz", *QUICK)
    assert status == 0, err
    assert "nan" not in out.replace("\n", " ").split()
    record = json.loads((run.folder / "evaluation.json").read_text(), parse_constant=no_constant)
    for found in record["values"].values():
        for key in {"value", "corrected", "low", "high"} & found.keys():
            assert isinstance(found[key], float)
    assert "worse than real items" not in out


def test_other_units_are_noticed(plane, tmp_path, capsys):
    np.save(tmp_path / "x.npy", 100 * np.random.default_rng(0).normal(size=(60, 2)))
    with pytest.warns(UserWarning, match="times as far as the data: are they in other units"):
        assert call(capsys, plane, "--samples_file", tmp_path / "x.npy", "--metrics", "energy", *QUICK)[0] == 0


def test_networks_that_do_not_fit(digits, tmp_path, capsys):
    class Floats(nn.Module):
        def forward(self, x):
            return nn.functional.conv2d(x, torch.ones(1, 3, 3, 3))

    class Whole(nn.Module):
        def forward(self, x):
            return x.float()

    for module, words in (
        (Floats(), "it must take uint8 images"),
        (Whole(), "2 items gave (2, 3, 8, 8), it needs a tensor (2, d)"),
    ):
        torch.jit.script(module).save(tmp_path / "m.pt")
        with pytest.warns(UserWarning, match="gray"):
            status, _, _, err = call(
                capsys, digits, "--samples_file", digits / "fresh.npz", "--features", tmp_path / "m.pt"
            )
        assert status == 2
        assert words in err
