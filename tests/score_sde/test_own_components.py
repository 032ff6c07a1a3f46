"""Components of one's own by import path: they train, are stored in the run, and are found again or missed by name."""

import json
import re
import shutil
import sys

import pytest

from samplers import DDIM, generate
from score_sde.cli import main
from score_sde.cli.modes import MODES
from sde.checkpoint.models import load_model
from sde.data.sets import source_of
from sde.networks import NETWORKS, network_of
from sde.process import process_of
from tests.score_sde.runs import call, without_rendering

MINE = '''
from dataclasses import dataclass
import torch
from torch import nn
from sde import SDE, Transform
from sde.data import Split
from sde.data.sets import split

class Net(nn.Module):
    def __init__(self, event_shape, num_classes=None, width: int = 8):
        super().__init__()
        self.num_classes = num_classes
        self.label = nn.Embedding((num_classes or 0) + 1, width)
        self.first = nn.Linear(event_shape[0] + 1, width)
        self.last = nn.Linear(width, event_shape[0])
    def forward(self, x, c_noise, cond=None):
        labels = torch.full_like(c_noise, -1).long() if cond is None else cond["labels"]
        h = self.first(torch.cat([x, c_noise[:, None]], 1)) + self.label(labels + 1)
        return self.last(torch.tanh(h))

class Judge(Net):
    def __init__(self, event_shape, num_classes, width: int = 8):
        super().__init__(event_shape, num_classes, width)
        self.last = nn.Linear(width, num_classes)
    def forward(self, x, c_noise):
        return self.last(torch.tanh(self.first(torch.cat([x, c_noise[:, None]], 1))))

class Untold(Net):
    def forward(self, x, c_noise):
        return super().forward(x, c_noise)

class Narrow(Net):
    def forward(self, x, c_noise, cond=None):
        return super().forward(x, c_noise, cond)[:, :1]

class Unnumbered(nn.Linear):
    def __init__(self, event_shape, num_classes=None):
        super().__init__(2, 2)

@dataclass(frozen=True)
class EDM(SDE):
    t_min: float = 0.01
    t_max: float = 80.0
    def log_alpha(self, t):
        return torch.zeros_like(t)
    def sigma(self, t):
        return t

def ring(radius: float = 1.0, count: int = 200, test_fraction: float = 0.1) -> Split:
    """`radius` is checked."""
    if radius <= 0:
        raise ValueError(f"radius = {radius}: needs a positive number")
    angle = torch.rand(count, generator=torch.Generator().manual_seed(0)) * 6.28
    x = radius * torch.stack([angle.cos(), angle.sin()], 1)
    return split(x, (angle > 3).long(), Transform.standardize(x), test_fraction)

def bare(root) -> Split:
    raise NotImplementedError

def unsaid(root=""):
    raise NotImplementedError
'''
OWN = ["--config.model.network.name=own_parts:Net", "--config.model.network.width=6", "--config.sde.name=own_parts:EDM",
       "--config.sde.t_max=50.0", "--config.data.dataset=own_parts:ring", "--config.data.radius=3.0",
       "--config.classifier.network.name=own_parts:Judge", "--config.classifier.steps=2",
       "--config.training.steps=4", "--config.training.batch_size=16", "--config.training.power_ema_stds=0.1,",
       "--config.training.extra_ema_decays=0.5,", "--config.training.sample_every=100"]  # fmt: skip
WORK = {
    "sample": ["--num_samples", 2, "--steps", 2, "--classifier_scale", 1], "likelihood": ["--num_samples", 2],
    "encode": ["--num_samples", 2, "--rtol", 0.1, "--atol", 0.1], "check": [], "ema": ["--relative_std", "0.1"],
    "train": ["--config.training.steps=6"], "visualize": ["--plots", "denoised", "--frames", 2, "--num_samples", 2],
}  # fmt: skip


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The folder of a module of one's own, and in it a run that is made of its parts."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_parts.py").write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        train = ["--mode", "train", "--config", "points", "--workdir", "run", *OWN]
        with without_rendering():
            assert main.main(train) == 0
            assert main.main(["--mode", "train_classifier", "--workdir", "run"]) == 0
        yield folder
    sys.modules.pop("own_parts", None)


def test_their_options_are_keys_of_the_run(own):
    config = json.loads((own / "run" / "config.json").read_text())
    assert config["model"]["network"] == {"name": "own_parts:Net", "width": 6}
    assert config["sde"] == {"name": "own_parts:EDM", "t_max": 50.0, "t_min": 0.01}
    assert (config["data"]["dataset"], config["data"]["radius"], config["data"]["count"]) == (
        "own_parts:ring",
        3.0,
        200,
    )


@pytest.mark.parametrize("mode", WORK)
def test_every_mode_finds_them(own, capsys, mode):
    status, result, error = call(capsys, "--mode", mode, "--workdir", "run", *WORK[mode])
    assert (status, result and result["mode"]) == (0, mode), error


@pytest.mark.parametrize("mode", ["sample", "train"])
def test_a_run_whose_module_is_away_says_where_it_was_looked_for(own, capsys, monkeypatch, tmp_path, mode):
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(own)])
    monkeypatch.delitem(sys.modules, "own_parts")
    monkeypatch.chdir(tmp_path)
    status, _, error = call(capsys, "--mode", mode, "--workdir", own / "run")
    assert status == 2
    assert re.search(rf"= 'own_parts:\w+': there is no module own_parts in {tmp_path} or on PYTHONPATH: work in", error)


@pytest.mark.parametrize("name", ["model.safetensors", "ema/0.5.safetensors", "checkpoints/denoiser-00000004.pt"])
def test_a_lone_file_does_not_choose_what_is_imported(own, trained, capsys, name):
    """It asks for its module; another run takes it where that is named by the user."""
    lone = trained / "lone"
    lone.mkdir(exist_ok=True)
    file = lone / name.replace("/", "-")
    shutil.copy(own / "run" / name, file)
    sample = [
        "--mode",
        "sample",
        "--workdir",
        trained,
        "--weights",
        f"lone/{file.name}",
        "--num_samples",
        2,
        "--steps",
        2,
    ]
    status, _, error = call(capsys, *sample)
    assert status == 2
    assert f"{file} asks to import own_parts:EDM and own_parts:Net, and a file does not choose what code runs" in error
    assert error.endswith("name them too, by --imports\n")
    assert call(capsys, *sample, "--imports", "own_parts:Net")[2].count("asks to import own_parts:EDM, and") == 1
    assert call(capsys, *sample, "--imports", "own_parts:Net,own_parts:EDM")[0] == 0
    with pytest.raises(ValueError, match="by `imports`"):
        load_model(file)
    model = load_model(file, imports={"own_parts:Net", "own_parts:EDM"})
    assert generate(model, DDIM(), 2, (2,), steps=2).x.shape == (2, 2)


REFUSED = [
    (network_of, "os:system", "network = 'os:system': system in .*os.py is not a subclass of torch.nn.Module"),
    (network_of, "subprocess:Popen", "Popen in .* is not a subclass of torch.nn.Module"),
    (network_of, "own_parts:EDM", "EDM in .*own_parts.py is not a subclass of torch.nn.Module"),
    (network_of, "own_parts:ring", "is not a subclass of torch.nn.Module"),
    (network_of, "own_parts:Nett", "there is no Nett in .*own_parts.py"),
    (network_of, "own_parts:", "needs an import path as package.module:Class"),
    (network_of, "../own_parts:Net", "needs an import path as package.module:Class"),
    (network_of, "own_broken:Net", r"own_broken could not be imported \(ZeroDivisionError: division by zero\)"),
    (network_of, "own_ending:Net", r"own_ending could not be imported \(SystemExit: 3\)"),
    (network_of, "own_missing:Net", "own_missing imports not_there_at_all, which is not installed"),
    (network_of, "Net", f"network = 'Net': needs one of {', '.join(NETWORKS)}"),
    (process_of, "own_parts:Net", "is not a subclass of sde.SDE"),
    (process_of, "builtins:eval", "is not a subclass of sde.SDE"),
    (source_of, "shutil:rmtree", "is not a function that is annotated to return sde.data.Split"),
    (source_of, "own_parts:unsaid", "is not a function that is annotated to return sde.data.Split"),
    (source_of, "own_parts:bare", "its argument root needs a default"),
]  # fmt: skip


@pytest.mark.parametrize(("find", "name", "words"), REFUSED, ids=[name for _, name, _ in REFUSED])
def test_only_what_fits_is_taken(own, find, name, words):
    (own / "own_broken.py").write_text("1 / 0\n")
    (own / "own_ending.py").write_text("raise SystemExit(3)\n")
    (own / "own_missing.py").write_text("import not_there_at_all\n")
    with pytest.raises(ValueError, match=words):
        find(name)


def test_only_modules_are_built(own, capsys):
    """Nothing is called, and nothing is left."""
    for name in ("pathlib:Path.touch", "own_parts:Unnumbered"):
        status, _, error = call(capsys, "--mode", "train", "--config", "points", "--workdir", "never", *OWN[2:],
                                f"--config.model.network.name={name}")  # fmt: skip
        assert status == 2
        assert f"config.model.network.name = '{name}'" in error
    assert "has no attribute num_classes: set it to what it is built with" in error
    assert not (own / "never").exists()


FORWARDS = {
    (
        "train",
        "model",
        "Untold",
    ): "forward(x, c_noise, cond) failed for x of shape (2, 2), c_noise of shape (2,) and cond of labels (TypeError: ",
    ("train", "model", "Narrow"): "the network returned shape (2, 1) for x of shape (2, 2)",
    (
        "train_classifier",
        "classifier",
        "Narrow",
    ): "forward returned shape (2, 1) for x of shape (2, 2), and needs (2, 2)",
}


@pytest.mark.parametrize(("mode", "section", "name"), FORWARDS)
def test_a_forward_that_does_not_fit(own, capsys, mode, section, name):
    key = f"config.{section}.network.name"
    status, _, error = call(capsys, "--mode", mode, "--config", "points", "--workdir", "never", *OWN,
                            f"--{key}=own_parts:{name}")  # fmt: skip
    assert status == 2
    assert error.startswith(f"error: {key} = 'own_parts:{name}': ")
    assert FORWARDS[mode, section, name] in error
    assert not (own / "never").exists()


def test_an_option_of_ones_own_data_is_named_by_its_key(own, capsys):
    status, _, error = call(capsys, "--mode", "train", "--config", "points", "--workdir", "never", *OWN,
                            "--config.data.radius=-1.0")  # fmt: skip
    assert (status, error) == (2, "error: config.data.radius = -1.0: needs a positive number\n")
    status, _, error = call(capsys, "--mode", "train", "--config", "points", "--workdir", "never", *OWN,
                            "--config.data.toy=ring")  # fmt: skip
    assert "config.data.toy = 'ring': config.data.dataset = 'own_parts:ring' has no use for it" in error
    status, _, error = call(capsys, "--mode", "train", "--config", "points", "--workdir", "never",
                            "--config.data.radius=1.0")  # fmt: skip
    assert "unknown key config.data.radius" in error


REGISTERED = {
    "config.model.network.name": ("from sde.networks import NETWORKS as table", "unet"),
    "config.classifier.network.name": ("from sde.networks import CLASSIFIERS as table", "unet"),
    "config.sde.name": ("from sde import SDES as table", "vp"),
    "config.sampler.name": ("from samplers import SAMPLERS as table", "heun"),
    "config.data.dataset": ("from sde.data import DATASETS as table", "points"),
    "config.data.kind": ("from score_sde.kinds import KINDS as table", "point"),
    "config.data.toy": ("from sde.data.toys import TOYS as table", "moons"),
    "config.model.parametrization": ("from sde import PARAMETRIZATIONS as table", "edm"),
    "config.training.loss_weighting": ("from sde.training.loss import WEIGHTINGS as table", "edm"),
}


@pytest.mark.parametrize("key", REGISTERED)
@pytest.mark.parametrize("new", [True, False], ids=["added", "replaced"])
def test_a_config_file_registers_nothing(own, capsys, key, new):
    line, old = REGISTERED[key]
    name = "mine" if new else old
    scope: dict = {}
    exec(line, scope)
    before = dict(scope["table"])
    other = next(other for other in before if other != old)
    (own / "registering.py").write_text(
        f"from ml_collections import ConfigDict\n{line}\ntable[{name!r}] = table[{other!r}]\n"
        'def get_config():\n    return ConfigDict({"data": {"dataset": "points"}})\n'
    )
    status, _, error = call(capsys, "--mode", "train", "--config", "registering.py", "--workdir", "never")
    assert status == 2
    assert f"error: --config=registering.py registers {key} = {name!r} for this command alone" in error
    assert dict(scope["table"]) == before
    assert not (own / "never").exists()


def test_the_flag_goes_with_the_weights():
    assert {name for name, mode in MODES.items() if "imports" in mode.flags} == {*MODES} - {
        "train",
        "train_classifier",
        "train_autoencoder",
        "distill",
        "import",
    }


def test_the_same_network_by_either_name():
    assert network_of("sde.networks.mlp:MLP") is network_of("mlp") is NETWORKS["mlp"]
