"""Fixtures of the tests of the program: one small run, trained once for all of them, and figures without rendering."""

import shutil

import pytest

from tests.score_sde.runs import students_once, trained_once, without_rendering


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A copy of the small run of ``trained_once``, which the tests of a module may write into."""
    folder = tmp_path_factory.mktemp("runs") / "points"
    shutil.copytree(trained_once(tmp_path_factory), folder)
    return folder


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    """A copy of the small students of ``students_once``, which the tests of a module may write into."""
    folder = tmp_path_factory.mktemp("students") / "students"
    shutil.copytree(students_once(tmp_path_factory), folder)
    return folder / "two", folder / "any"


@pytest.fixture
def unrendered():
    """For tests ``without_rendering``."""
    with without_rendering():
        yield


@pytest.fixture(scope="module")
def unrendered_module():
    """The same for fixtures of a module, while its tests run."""
    with without_rendering():
        yield
