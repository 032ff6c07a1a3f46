"""The language of the library: its sentences name its own arguments, never a flag or a config key."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = re.compile(r"config\.(?!json)[a-z]|(?<![\w-])--[a-z]")
PACKAGES = ("sde", "samplers")


def sentences(path):
    """The strings of a module, those within f-strings included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("package", PACKAGES)
def test_no_flags_and_no_keys(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    assert [(path.name, text) for path in files for text in sentences(path) if FOREIGN.search(text)] == []
