"""The documents: their Python runs, their commands are ones that the program takes, their facts are the code's."""

import importlib.util
import json
import pkgutil
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import samplers
import sde
import sde.guidance
from samplers import SAMPLERS
from score_sde import metrics
from score_sde.cli import main
from score_sde.cli.command import split_arguments
from score_sde.cli.flags import check_flags, define_flags
from score_sde.cli.modes import MODES
from score_sde.cli.values import of_root
from score_sde.config.config import config_path, read_config, resolve
from tests.oracles.pipelines import stable_diffusion

pytestmark = pytest.mark.xdist_group("docs")

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
}
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"^(?:\S*python main\.py|torchrun .*main\.py|score-sde)(?= --)")
SMALL = ["--config.training.steps=20", "--config.training.batch_size=32", "--config.training.warmup_steps=1",
         "--config.model.network.channels=8", "--config.model.network.attention_resolutions=()",
         "--config.classifier.steps=10", "--config.classifier.network.channels=8",
         "--config.training.ema_decay=0.9"]  # fmt: skip


def load_generator():
    """The script that makes the samplers' pages, which lies beside them."""
    spec = importlib.util.spec_from_file_location("sampler_pages", DOCS / "sampler_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sampler_pages = load_generator()


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
OF_ONES_OWN = [arguments for arguments in COMMANDS.values() if "runs/waves" in arguments]
PYTHON = [page for page in TEXTS if blocks(page, python=True)]
SHARED = ROOT.parent / "shared" / "data"
NEEDED = {"docs/pretrained.md": {"weights/mnist-flow-vit.safetensors": "weights/mnist-flow-vit.safetensors",
                                 "data/mnist": "mnist"}}  # fmt: skip
"""Files that a page asks for, by where they lie in the shared data."""
OF_PIPELINES = re.compile(r'_pipeline\("stable-diffusion-v1-5"')
"""Blocks that load a pipeline, of which there is a tiny one for the reader where the extra latent is installed."""
PAGES = sorted(path.stem for path in (DOCS / "samplers").glob("*.md") if path.stem != "index")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
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
    for name, place in NEEDED.get(page, {}).items():
        if not (SHARED / place).exists():
            pytest.skip(f"there is no {SHARED / place}: it is not part of this project")
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to(SHARED / place)
    installed = all(importlib.util.find_spec(name) for name in ("diffusers", "transformers"))
    if OF_PIPELINES.search(TEXTS[page]) and installed:
        stable_diffusion().save_pretrained("stable-diffusion-v1-5")
    namespace = {"__name__": page}
    for line, block in blocks(page, python=True):
        if OF_PIPELINES.search(block) and not installed:
            continue
        # Empty lines in front, so that a traceback has the page's own.
        exec(compile("\n" * line + block, ROOT / page, "exec"), namespace)


def test_commands_are_found():
    """As many as there are lines with the program, so that none is passed over because of how it is written."""
    mentions = [line for text in TEXTS.values() for line in text.splitlines() if re.search(r"main\.py.* --mode ", line)]
    inline = [line for line in mentions if "`" in line]
    assert len(COMMANDS) == len(mentions) - len(inline)
    assert {arguments[arguments.index("--mode") + 1] for arguments in COMMANDS.values()} == MODES.keys()


def test_parts_of_ones_own_by_import_path(capsys, monkeypatch, tmp_path):
    """The example of extending.md: its commands, with the classes and functions above them in a module."""
    above = TEXTS["docs/extending.md"].partition("## By import path")[0].count("\n")
    parts = [block for line, block in blocks("docs/extending.md", python=True) if line < above]
    (tmp_path / "waves.py").write_text("\n".join(parts))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    train, sample = OF_ONES_OWN
    assert main.main([*train, "--config.training.steps=2", "--config.training.batch_size=8"]) == 0
    assert main.main([*sample, "--num_samples", "3", "--steps", "2"]) == 0
    capsys.readouterr()
    sys.modules.pop("waves")
    config = json.loads((tmp_path / "runs/waves/config.json").read_text())
    assert config["model"]["network"] == {"name": "waves:Convolutions", "width": 32}
    assert (config["sde"]["t_max"], config["data"]["test_fraction"]) == (50.0, 0.2)


@pytest.mark.parametrize("where", [where for where in COMMANDS if COMMANDS[where] not in OF_ONES_OWN])
def test_command_is_one_that_the_program_takes(where):
    plain, overrides = split_arguments(COMMANDS[where])
    options = define_flags()
    assert options(["main.py", *plain])[1:] == []
    check_flags(options, overrides)
    MODES[options.mode].arguments({name: options[name].value for name in options if options[name].present})
    name = options.config or Path(options.workdir or "digits").name
    known = options.config or (ROOT / "configs" / f"{name}.py").exists()
    if options.sampler:
        overrides = [*overrides, f"--config.sampler.name={options.sampler}"]
    # A pipeline has no config.
    of_pipeline = "FOLDER" in (options.pipeline, options.init)
    values = of_root(overrides) if of_pipeline else read_config(config_path(name if known else "digits"))
    resolve(values, overrides)


def test_every_sampler_has_a_page():
    assert sorted(SAMPLERS) == PAGES
    assert "```{toctree}\n:hidden:\n:glob:\n\n*\n```" in TEXTS["docs/samplers/index.md"]


@pytest.mark.parametrize("name", SAMPLERS)
def test_page_of_a_sampler(name):
    """Table and formula are those of the class, and there is a command to try."""
    written = TEXTS[f"docs/samplers/{name}.md"]
    assert sampler_pages.page(name, written) == written, "run: python docs/sampler_pages.py"
    assert f"--sampler {name} " in written
    assert "## When to use it" in written


def test_a_new_page_has_what_a_page_needs():
    written = sampler_pages.page("ddim")
    assert sampler_pages.page("ddim", written) == written
    assert "--sampler ddim " in written
    assert "| order | 1 |" in written
    assert "| network calls per step | 1 |" in written
    assert "| options | `eta=0.0` |" in written


def test_a_docstring_becomes_markdown():
    """Literals, signs that Markdown would take, and formulas on lines of their own."""
    docstring = "Takes ``a_b`` times x * y <= z, <b> at $1.\n\n    x_s = a * x\n    y_s = <b>"
    expected = "Takes `a_b` times x \\* y <= z, \\<b> at \\$1.\n\n```text\nx_s = a * x\ny_s = <b>\n```"
    assert sampler_pages.markdown(docstring) == expected


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


def cells(text, title):
    """The rows below the head of the first table under a title: lists of cells."""
    part = text.partition(f"### {title}\n")[2].partition("\n#")[0]
    rows = [line.strip("|").split(" | ") for line in part.splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def full_names(cell):
    """The Python names in a cell, written out: `a.b`, `.c` are a.b and a.c; arguments are left away."""
    found = []
    for name in re.findall(r"`([\w.]+)", cell):
        if name.startswith(".") and found:
            name = found[-1].rpartition(".")[0] + name
        found.append(name)
    return [name for name in found if re.fullmatch(r"(?:sde|samplers|score_sde)(?:\.\w+)*\.\w+", name)]


def test_changelog_names_flags_that_there_are():
    options = define_flags()
    for old, modes, new in cells(CHANGELOG, "Flags and their values"):
        for flag in re.findall(r"--(\w+)", new):
            assert flag in options, new
        renamed = re.fullmatch(r"`--(\w+)`", old)
        if renamed and modes in MODES:
            assert renamed[1] not in MODES[modes].flags, old


def test_changelog_names_config_keys_that_there_are():
    config = resolve(read_config(config_path("cifar10")), []).to_dict()
    patch_size = resolve(read_config(config_path("cifar10_dit")), []).to_dict()["model"]["network"]["patch_size"]
    assert patch_size == 2
    for old, new in cells(CHANGELOG, "Config keys"):
        for row, there in ((old, False), (new, True)):
            *sections, key = re.match(r"`config\.([\w.]+)", row)[1].split(".")
            section = config
            for name in sections:
                section = section[name]
            assert key == "patch_size" or (key in section) == there, row


@pytest.mark.parametrize("title", ["Python: names", "Python: modules"])
def test_changelog_names_python_that_there_is(title):
    names = [name.removesuffix(".MODE") for _, new in cells(CHANGELOG, title) for name in full_names(new)]
    missing = []
    for name in names:
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert len(names) > 20
    assert missing == []


def test_readme_tells_every_mode_in_one_line():
    rows = re.findall(r"^\| (\w+) \| .* \|$", TEXTS["README.md"], re.MULTILINE)
    assert [name for name in rows if name != "mode"] != []
    assert {*rows} - {"mode"} == MODES.keys()
    lines = TEXTS["README.md"].splitlines()
    assert [line for line in lines if line[:2] == "| " and len(line) > 90] == []


def test_the_index_repeats_nothing_of_the_readme():
    first = [line for line in TEXTS["README.md"].splitlines()[:20] if len(line) > 20]
    assert len(first) > 5
    assert [line for line in first if line in TEXTS["docs/index.md"]] == []
