"""Configs of data, zips of folders, and refusals."""

import re
import zipfile

import pytest

from score_sde.config.naming import with_keys
from sde import data


def config(dataset, **keys):
    keys = {key: str(value) if key.endswith("root") else value for key, value in keys.items()}
    return {"dataset": dataset, **keys}


def load_dataset(**options):
    """As at the door of the command line, where options get their keys."""
    with with_keys("data"):
        return data.load_dataset(**options)


def packed(root):
    """A zip of what is in a folder, beside it."""
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root))
    return root.with_suffix(".zip")


def refused(sentence, function, *arguments, **keys):
    """The whole sentence of the ValueError at the door, numbers and paths included."""
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"), with_keys("data", "model"):
        function(*arguments, **keys)
