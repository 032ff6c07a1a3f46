"""The reference of config keys, ``docs/config.md``, and the texts of --help, ``score_sde/cli/help.json``.

``python docs/config_page.py`` writes both from the code. A test compares, so that they are made again when a flag, a
key, a default or a meaning has changed.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from score_sde.cli.flags import usage  # noqa: E402 (from this tree, whatever is installed)
from score_sde.cli.help import TEXTS  # noqa: E402
from score_sde.cli.keys import SECTIONS, keys  # noqa: E402
from score_sde.cli.modes import MODES  # noqa: E402

PAGE = ROOT / "docs" / "config.md"
HEAD = """# Config keys

<!-- Written by docs/config_page.py from the code. -->

A config file in `configs/` sets some of these keys, `--config.KEY=VALUE` sets one for a command, as in
`--config.training.lr=0.0005` or `--config.model.network.channel_mult='(1,2,4)'`, and `config.json` of a run folder
holds all of them. `--help` beside `--mode` lists those that can be changed with a mode. Where a section has a `name`,
its other keys are the options of what that names, and the default says of which.
"""
TITLES = {
    "data": "the data",
    "sde": "the process",
    "model": "the model",
    "model.network": "its network",
    "model.text": "the encoder of captions, of models with text among config.data.conditions",
    "training": "training",
    "classifier": "the classifier of --mode train_classifier",
    "classifier.network": "its network",
    "autoencoder": "the autoencoder of --mode train_autoencoder",
    "autoencoder.network": "its network",
    "control": "the control of a frozen base",
    "distillation": "the teacher of --mode distill",
    "distillation.method": "how the student is trained",
    "sampler": "the sampler",
}
"""What each section is about."""


def page() -> str:
    """The text of ``docs/config.md``."""
    parts = [HEAD]
    for section in SECTIONS:
        parts.append(
            f"\n## config.{section}: {TITLES[section]}\n\n| key | default | meaning | allowed |\n|---|---|---|---|\n"
        )
        for key in keys(section):
            allowed = ", ".join(f"`{name}`" for name in key.allowed)
            name = key.path.rpartition(".")[2]
            parts.append(f"| `{name}` | `{key.default}` | {key.meaning.replace('$', chr(92) + '$')} | {allowed} |\n")
    return "".join(parts)


def texts() -> str:
    """The text of ``help.json``: by mode, and under "" of all."""
    return json.dumps({"": usage(), **{mode: usage(mode) for mode in MODES}}, indent=1) + "\n"


if __name__ == "__main__":
    sys.argv[0] = "main.py"
    PAGE.write_text(page(), encoding="utf-8")
    TEXTS.write_text(texts(), encoding="utf-8")
