"""--help and the reference of config keys: those of the code, whole, and told without importing what takes long."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from score_sde.cli.keys import SECTIONS, Key, keys
from score_sde.cli.meanings import ALLOWED, MEANINGS, meaning
from score_sde.cli.modes import MODES
from score_sde.config.config import config_path, read_config, resolve
from score_sde.config.schema import NAMED, options_of
from tests.score_sde.runs import call

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config_page(monkeypatch):
    """The script that writes the page and the texts."""
    spec = importlib.util.spec_from_file_location("config_page", ROOT / "docs" / "config_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("sys.argv", ["main.py"])
    return module


def test_what_was_written_is_what_the_code_says(config_page):
    assert config_page.PAGE.read_text() == config_page.page(), "run: python docs/config_page.py"
    assert config_page.TEXTS.read_text() == config_page.texts(), "run: python docs/config_page.py"


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_told_in_one_whole_line(mode):
    assert MODES[mode].function.__doc__.partition("\n")[0].endswith(".")


def test_a_flag_of_two_modes_is_told_for_both(config_page):
    """--method names what distill and what restore take, and of one mode its own alone."""
    texts = {mode: " ".join(text.split()) for mode, text in json.loads(config_page.texts()).items()}
    assert "of distill, how the student is trained: progressive" in texts[""]
    assert "of restore, auto (mmps with" in texts[""]
    assert "meanflow" not in texts["restore"]
    assert "pigdm" not in texts["distill"]


def test_every_key_of_every_config_is_there():
    told = {key.path for section in SECTIONS for key in keys(section)}
    for name in ("digits", "points", "cifar10_dit", "cifar10_edm", "cifar10_ncsnpp"):
        config = resolve(read_config(config_path(name)), []).to_dict()
        for section in SECTIONS:
            values = config
            for part in section.split("."):
                values = values[part]
            assert {f"{section}.{key}" for key, value in values.items() if not isinstance(value, dict)} <= told


def test_every_option_of_every_component_is_there():
    for section, table in NAMED.items():
        told = {key.path: key for key in keys(section)}
        for name, component in table.items():
            for option, value in options_of(component).items():
                assert told[f"{section}.{option}"].defaults[name] == value


def test_no_meaning_is_left_over():
    used = {id(meaning(section, key.path.rpartition(".")[2])) for section in SECTIONS for key in keys(section)}
    assert [name for name, text in MEANINGS.items() if id(text) not in used] == []
    assert {*ALLOWED} <= {key.path for section in SECTIONS for key in keys(section)}
    with pytest.raises(KeyError):
        meaning("data", "nobody_described")


def test_defaults_by_component():
    assert Key("a", {"": ""}, "").default == "''"
    assert Key("a", {"x": 1, "y": 1}, "").default == "1 (x, y)"
    assert Key("a", {"x": 1, "y": 2}, "").default == "x 1, y 2"


@pytest.mark.parametrize("mode", MODES)
def test_help_of_a_mode_lists_the_keys_that_it_takes(mode):
    text = json.loads((ROOT / "score_sde" / "cli" / "help.json").read_text())[mode]
    named = {section for section in SECTIONS if f"\nconfig.{section}:\n" in text}
    if not MODES[mode].training:
        assert named == {*MODES[mode].sections}
    else:
        assert {"data", "training"} <= named
        assert ("sde" in named) == (mode != "train_autoencoder")
        for kind in ("classifier", "autoencoder"):
            assert (kind in named) == (mode == f"train_{kind}")


def test_help_imports_nothing_that_takes_long():
    """By the modules that it loads: times depend on the machine."""
    code = (
        "import sys\nfrom score_sde.cli.main import main\nassert main(sys.argv[1:]) == 0\n"
        "slow = {'torch', 'numpy', 'scipy', 'matplotlib', 'sklearn', 'absl', 'ml_collections', 'sde', 'samplers'}\n"
        "assert not slow & {*sys.modules}, slow & {*sys.modules}\n"
    )
    for arguments in (
        [],
        ["--help"],
        ["--mode", "train", "--help"],
        ["--mode=sample", "-h"],
        ["--help", "--mode", "ema"],
    ):
        process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
        assert process.returncode == 0, process.stderr
        assert process.stdout.startswith("usage: python main.py --mode MODE")


def test_a_mode_that_there_is_not(capsys):
    status, _, error = call(capsys, "--mode", "smaple", "--help")
    assert status == 2
    assert "--mode = 'smaple': needs one of train, " in error
    assert "(did you mean sample?)" in error


@pytest.mark.parametrize("mode", MODES)
def test_the_line_of_a_mode_is_a_whole_sentence(mode):
    assert MODES[mode].function.__doc__.partition("\n")[0].endswith(".")
