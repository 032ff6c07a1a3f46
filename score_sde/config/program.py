"""How the command line was called, and words of commands, for people to copy."""

import os
import shlex
import sys
from pathlib import Path


def program() -> str:
    """How the command line was called, for commands to copy: the installed command, or main.py."""
    called = Path(sys.argv[0])
    if called.stem == "score-sde":
        return "score-sde"
    if called.parts[-2:] == ("score_sde", "__main__.py"):
        return "python -m score_sde"
    return f"python {quoted(called)}" if called.name == "main.py" else "python main.py"


def quoted(value: object) -> str:
    """A word of a command to copy, as shells take it: in quotes where it needs them, and by its bytes where it cannot
    be written."""
    word = str(value)
    if word.isprintable():
        return shlex.quote(word)
    shown = (chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return f"$'{''.join(shown)}'"
