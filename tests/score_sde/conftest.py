"""Fixtures of the tests of the program: one small run, trained once for all of them, and figures without rendering."""

import shutil
from contextlib import nullcontext

import pytest

from tests.score_sde.runs import students_once, trained_once, with_rendering, without_rendering


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


@pytest.fixture(scope="module", autouse=True)
def unrendered_module(request):
    """All here is ``without_rendering``, but for what is marked ``rendered``."""
    with nullcontext() if request.node.get_closest_marker("rendered") else without_rendering():
        yield


@pytest.fixture(autouse=True)
def rendered(request):
    """Tests, or modules of tests, that look at pictures are marked ``rendered``."""
    with with_rendering() if request.node.get_closest_marker("rendered") else nullcontext():
        yield


@pytest.fixture
def unrendered():
    """For what is not, among others that are."""
    with without_rendering():
        yield
