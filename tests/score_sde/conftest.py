"""Fixtures of the tests of the program: one small run, trained once for all of them, and figures without rendering."""

import shutil

import pytest
from matplotlib.figure import Figure

from tests.score_sde.runs import blank_picture, trained_once


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A copy of the small run of ``trained_once``, which the tests of a module may write into."""
    folder = tmp_path_factory.mktemp("runs") / "points"
    shutil.copytree(trained_once(tmp_path_factory), folder)
    return folder


@pytest.fixture
def unrendered(monkeypatch):
    """Figures are drawn by the program's own code, but not rendered by matplotlib, which takes most of the time of a
    small command: for tests that do not look at a picture's pixels."""
    monkeypatch.setattr(Figure, "savefig", blank_picture)


@pytest.fixture(scope="module")
def unrendered_module():
    """The same for fixtures of a module, while its tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", blank_picture)
        yield
