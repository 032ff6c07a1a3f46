"""Fixtures of the tests of ``sde``."""

import pytest

from tests.sde.small_data import packed


@pytest.fixture(params=["folder", "zip"])
def pack(request):
    """A function of a folder: the folder, or a zip of it."""
    return packed if request.param == "zip" else lambda root: root
