"""Fixtures: every process by name, a generator, two threads."""

import pytest
import torch

from tests.processes import PROCESSES

torch.set_num_threads(2)


@pytest.fixture(params=PROCESSES)
def process(request):
    return PROCESSES[request.param]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
