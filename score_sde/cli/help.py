"""--help, from texts that ``python docs/config_page.py`` wrote: nothing that takes long is imported for it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from score_sde.config.program import program

TEXTS = Path(__file__).with_name("help.json")
WRITTEN_FOR = "python main.py"
"""How the texts call the program."""


def help_text(arguments: Sequence[str]) -> str | None:
    """What a command asks for by --help, or by no flag at all: about one mode where it names one. None where it asks
    for something else, or for a mode that there is not."""
    if arguments and not {"--help", "-h", "-help"} & {*arguments}:
        return None
    mode = re.search(r"-mode[= ](\w+)", " ".join(arguments))
    text = json.loads(TEXTS.read_text(encoding="utf-8")).get(mode[1] if mode else "")
    return text and text.replace(WRITTEN_FOR, program())
