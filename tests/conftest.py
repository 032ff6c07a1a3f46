"""Fixtures: every process by name, a generator."""

import pytest
import torch

from tests.processes import PROCESSES

# Tensors here are tiny, and the tests run in two processes.
torch.set_num_threads(1)


@pytest.fixture(params=PROCESSES)
def process(request):
    return PROCESSES[request.param]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
