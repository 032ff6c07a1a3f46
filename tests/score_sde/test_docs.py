"""The documents: their Python runs, their commands are ones that the program takes, their facts are the code's."""

import inspect
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

import samplers
import sde
import sde.guidance
from samplers import GRIDS, SAMPLERS, SeededNoise, sample
from samplers.calls import CallCounter
from score_sde import metrics
from score_sde.cli import main
from score_sde.cli.flags import check_flags, define_flags
from score_sde.cli.modes import MODES
from score_sde.config.config import config_path, read_config, resolve
from sde import VPSDE
from tests.oracles.exact import Gaussian

pytestmark = pytest.mark.xdist_group("docs")

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]}
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"^(?:\S*python main\.py|torchrun .*main\.py|score-sde)(?= --)")
SMALL = ["--config.training.steps=20", "--config.training.batch_size=32", "--config.training.warmup=1",
         "--config.model.network.channels=8", "--config.model.network.attention=()", "--config.classifier.steps=10",
         "--config.classifier.network.channels=8", "--config.training.ema=0.9"]  # fmt: skip


def blocks(page, python):
    """The fenced blocks of a page that are Python, or those that are not, each with the line before it."""
    text = TEXTS[page]
    return [
        (text[: match.start(2)].count("\n"), match[2])
        for match in FENCE.finditer(text)
        if (match[1] == "python") == python
    ]


def commands():
    """The command lines of all pages: page:line -> its arguments, without the brackets of optional ones."""
    found = {}
    for page in TEXTS:
        for line, block in blocks(page, python=False):
            for number, command in enumerate(block.replace("\\\n", " ").splitlines(), line + 1):
                if PROGRAM.match(command):
                    found[f"{page}:{number}"] = shlex.split(
                        re.sub(r"[][]", "", PROGRAM.sub("", command)), comments=True
                    )
    return found


COMMANDS = commands()
PYTHON = [page for page in TEXTS if blocks(page, python=True)]
PAGES = sorted(path.stem for path in (DOCS / "samplers").glob("*.md") if path.stem != "index")


@pytest.fixture(scope="module")
def digits(tmp_path_factory, unrendered_module):
    """A folder with the run runs/digits, hardly trained."""
    folder = tmp_path_factory.mktemp("reader")
    workdir = str(folder / "runs" / "digits")
    assert main.main(["--mode", "train", "--config", "digits", "--workdir", workdir, *SMALL]) == 0
    assert main.main(["--mode", "train_classifier", "--workdir", workdir]) == 0
    return folder


@pytest.mark.parametrize("page", PYTHON)
def test_python_runs(page, digits, tmp_path, monkeypatch):
    """All blocks of a page, from its first to its last, as a reader would paste them."""
    folder = tmp_path / "reader"
    shutil.copytree(digits, folder)
    monkeypatch.chdir(folder)
    namespace = {"__name__": page}
    for line, block in blocks(page, python=True):
        # Empty lines in front, so that a traceback has the page's own.
        exec(compile("\n" * line + block, ROOT / page, "exec"), namespace)


def test_commands_are_found():
    """As many as there are lines with the program, so that none is passed over because of how it is written."""
    mentions = [line for text in TEXTS.values() for line in text.splitlines() if re.search(r"main\.py.* --mode ", line)]
    inline = [line for line in mentions if "`" in line]
    assert len(COMMANDS) == len(mentions) - len(inline)
    assert {arguments[arguments.index("--mode") + 1] for arguments in COMMANDS.values()} == MODES.keys()


@pytest.mark.parametrize("where", COMMANDS)
def test_command_is_one_that_the_program_takes(where):
    plain, overrides = main.split_arguments(COMMANDS[where])
    options = define_flags()
    assert options(["main.py", *plain])[1:] == []
    check_flags(options, overrides)
    MODES[options.mode].arguments({name: options[name].value for name in options if options[name].present})
    name = options.config or Path(options.workdir or "digits").name
    own = {path.stem for path in (ROOT / "configs").glob("*.py")}
    if options.sampler:
        overrides = [*overrides, f"--config.sampler.name={options.sampler}"]
    resolve(read_config(config_path(name if name in own or options.config else "digits")), overrides)


def test_every_sampler_has_a_page():
    assert sorted(SAMPLERS) == PAGES
    listed = re.search(r"```{toctree}\n:hidden:\n\n(.*?)```", TEXTS["docs/samplers/index.md"], re.DOTALL)[1].split()
    assert sorted(listed) == PAGES


def facts(name):
    """The table of a sampler's page."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", TEXTS[f"docs/samplers/{name}.md"], re.MULTILINE)
    return dict(rows)


@pytest.mark.parametrize("name", PAGES)
def test_page_of_a_sampler(name):
    """Class, order, counted calls, defaults and options are those of the code."""
    told, sampler = facts(name), SAMPLERS[name]()
    module, _, attribute = told["in Python"].split("`")[1].partition(".")
    assert module == "samplers"
    if attribute != type(sampler).__name__:
        assert told["in Python"] == f"`samplers.{attribute}`, a `{type(sampler).__name__}`"
        assert getattr(samplers, attribute) is SAMPLERS[name]
    assert told["order"] == (f"{sampler.order:g}" if sampler.order else "none")
    assert told["default"] == f"{sampler.steps} step{'s' * (sampler.steps > 1)}, grid `{sampler.grid}`"
    options = {option.name: option.default for option in inspect.signature(SAMPLERS[name]).parameters.values()}
    written = [
        f"`{key}={value}`" if not isinstance(value, str) else f'`{key}="{value}"`' for key, value in options.items()
    ]
    assert told["options"] == (", ".join(written) or "none")
    if told["calls a step"] != "as needed":
        sde = VPSDE()
        model, x = Gaussian(sde, torch.zeros(2), 0.5), torch.ones(3, 2)
        with CallCounter(model, 3) as counter:
            sample(model, sampler, x, GRIDS["log_snr"](sde, 5), SeededNoise(range(3)), denoise=False)
        assert counter.calls.tolist() == [5 * int(told["calls a step"])] * 3
    assert f"--sampler {name} " in TEXTS[f"docs/samplers/{name}.md"]


def test_figures_of_the_samplers_are_those_measured():
    """The overview's table is columns of a table in accuracy.md."""

    def rows(text):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
        return {line[0]: line[1:] for line in lines}

    measured = rows(re.search(r"\| gmm16 .*?\n\n", TEXTS["docs/accuracy.md"], re.DOTALL)[0])
    told = rows(re.search(r"\| network calls .*?\n\n", TEXTS["docs/samplers/index.md"], re.DOTALL)[0])
    columns = [measured["gmm16"].index(calls) for calls in told.pop("network calls")]
    del told["---"]
    assert len(told) == 7
    assert told == {name: [measured[name][column] for column in columns] for name in told}


@pytest.mark.parametrize("module", [sde, sde.guidance, samplers, metrics], ids=lambda module: module.__name__)
def test_public_names_are_in_the_reference(module):
    reference = TEXTS["docs/api.md"]
    whole = f".. automodule:: {module.__name__}\n   :members:\n"
    missing = [name for name in module.__all__ if not re.search(rf"\b{module.__name__}\.{name}\b", reference)]
    assert whole in reference or missing == []


def test_every_page_is_in_the_contents():
    contents = "".join(re.findall(r"```{toctree}(.*?)```", TEXTS["docs/index.md"], re.DOTALL))
    listed = set(re.findall(r"^([\w/]+)$", contents, re.MULTILINE))
    pages = {path.stem for path in DOCS.glob("*.md") if path.stem != "index"}
    assert listed == pages | {"samplers/index"}
