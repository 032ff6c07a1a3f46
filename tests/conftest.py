"""Fixtures: every process by name, a generator. What a test draws without one is the same in every run of it;
``TEST_SEED=1 make test`` draws anew, and a test that holds by luck falls."""

import gc
import os

import numpy as np
import pytest
import torch

from tests.oracles import simulated_device
from tests.oracles.processes import PROCESSES

# Torch's backward passes know the devices that were there at the first of them.
if simulated_device.available:
    simulated_device.install()

# Tensors here are tiny, and the tests run in two processes.
torch.set_num_threads(1)

# Torch and thousands of tests stay to the end: to look for garbage among them takes a tenth of the time.
gc.disable()
# Nothing that tests write has to outlast a power cut.
os.fsync = lambda descriptor: None


LONG = ("processes", "conditional_runs", "docs", "evaluate")
"""Groups of tests that one worker runs, by ``xdist_group``; the longest first."""


def pytest_collection_modifyitems(items):
    """Long groups come first: of two workers, one would be waiting for the group that is begun last."""

    def place(item):
        group = item.get_closest_marker("xdist_group")
        return LONG.index(group.args[0]) if group and group.args[0] in LONG else len(LONG)

    items.sort(key=place)
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    seed = int(os.environ.get("TEST_SEED", "0"))
    torch.manual_seed(seed)
    np.random.seed(seed)


@pytest.fixture(params=PROCESSES)
def process(request):
    return PROCESSES[request.param]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
