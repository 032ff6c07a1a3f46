"""Copies on a stream beside computations: what is asked of CUDA, and in which order, by a stand-in for it."""

from contextlib import contextmanager

import pytest
import torch

from sde import VPSDE
from sde.data import Dataset
from sde.data.transform import Transform
from sde.distributed.world import World
from sde.training import batches as module
from sde.training.batches import Batches
from sde.training.copies import CopyStream, tensors
from sde.training.options import TrainingOptions

CUDA = torch.device("cuda")


class Kept(torch.Tensor):
    """A tensor that says it is on the device, and which streams its memory is kept for."""

    is_cuda = True

    def record_stream(self, stream):
        stream.log.append(("keep", stream.name))


class Stream:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def wait_stream(self, other):
        self.log.append(("wait", self.name, other.name))

    def record_event(self):
        self.log.append(("record", self.name))
        return f"event {self.name}"

    def wait_event(self, event):
        self.log.append(("wait", self.name, event))


@pytest.fixture
def log(monkeypatch):
    """What was asked of CUDA, in order; the current stream is "main" but within ``torch.cuda.stream``."""
    log, current = [], []

    @contextmanager
    def stream(held):
        current.append(held)
        yield
        current.pop()

    main = Stream("main", log)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("side", log))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[-1] if current else main)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    return log


def test_the_other_stream_waits_and_the_memory_is_kept(log):
    """Copies wait for what was there before; who takes them waits for them, on the device, and its stream keeps their
    memory from the next copies."""
    copies = CopyStream(CUDA)
    assert copies.beside

    def place():
        log.append(("place", torch.cuda.current_stream(CUDA).name))
        return torch.ones(2).as_subclass(Kept), {"labels": torch.ones(1).as_subclass(Kept)}, (None, torch.ones(3))

    begun = copies.begin(place)
    assert log == [("wait", "side", "main"), ("place", "side"), ("record", "side")]
    del log[:]
    assert copies.take(begun) is begun.value
    assert log == [("wait", "main", "event side"), ("keep", "main"), ("keep", "main")]


def test_other_devices_copy_at_once():
    copies = CopyStream(torch.device("cpu"))
    assert not copies.beside
    assert copies.take(copies.begin(lambda: ("x", None))) == ("x", None)


def test_tensors_of_a_nest():
    x, y, z = torch.ones(3, 2)
    assert [t.data_ptr() for t in tensors((x, {"a": y}, (None, 1.0, z)))] == [t.data_ptr() for t in (x, y, z)]


@pytest.fixture
def beside(log, monkeypatch):
    """Batches of a device with streams whose memory is the CPU's."""
    monkeypatch.setattr(module, "pinned", lambda x, device: x)
    monkeypatch.setattr(module, "send", lambda x, device: x)
    monkeypatch.setattr(Dataset, "to", lambda self, device: self)
    data = Dataset(torch.arange(40.0)[:, None], None, None, Transform())
    options = TrainingOptions(steps=5, batch_size=8)

    def made(device, workers):
        return Batches(data, VPSDE(), options, World(), device, workers)

    return made


def test_the_next_batch_is_copied_while_one_is_used(beside, log):
    read, plain = beside(CUDA, 2), beside(torch.device("cpu"), 0)
    wanted = [plain.get(number) for number in range(5)]
    found = []
    for number in range(5):
        until_ready(read, number, number + 1)
        del log[:]
        found.append(read.get(number))
        # Whether the second one was read in time for the first, nobody knows.
        if number >= 2:
            assert [entry[0] for entry in log] == ["record"] * (number < 4) + ["wait"], log
    read.close()
    for (x, _, draws), (y, _, others) in zip(found, wanted, strict=True):
        assert torch.equal(x, y)
        assert all(torch.equal(a, b) for a, b in zip(draws[:5], others[:5], strict=True))


def test_another_batch_than_the_next_and_another_start(beside, log):
    """What was copied ahead is dropped where it is not asked for, and where numbers stand for other batches."""
    read, plain = beside(CUDA, 1), beside(torch.device("cpu"), 0)
    for number in (0, 3, 3, 1):
        until_ready(read, number, number + 1)
        assert torch.equal(read.get(number)[0], plain.get(number)[0])
    until_ready(read, 2)
    for batches in (read, plain):
        batches.start_at(16)
    assert torch.equal(read.get(2)[0], plain.get(2)[0])
    assert torch.equal(plain.get(0)[0], beside(torch.device("cpu"), 0).get(2)[0])
    read.close()


def until_ready(read, *numbers):
    """Wait until batches are read, those that there are."""
    parts = read._parts
    for number in numbers:
        if number in parts._values:
            parts._values[number].result()
