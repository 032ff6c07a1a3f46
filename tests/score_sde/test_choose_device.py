"""--device: what torch knows is taken, what is not there is refused in one sentence that says what is."""

import re

import pytest
import torch

from score_sde.run.device import choose_device
from sde.distributed.world import World
from tests.oracles import simulated_device as sim


@pytest.fixture
def machine(monkeypatch):
    """Pretends that these devices are here, by kind and number; "cpu" is without being named."""

    def pretend(**counts):
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        monkeypatch.setattr(torch._C, "_get_privateuse1_backend_name", lambda: "privateuseone")
        for kind in ("cuda", "xpu", "mps"):
            count = counts.get(kind, 0)
            monkeypatch.setattr(getattr(torch, kind), "is_available", lambda count=count: count > 0)
            monkeypatch.setattr(getattr(torch, kind), "device_count", lambda count=count: count)

        def empty(*shape, device):
            if device.type not in ("cpu", *counts):
                raise AssertionError(f"Torch not compiled with {device.type.upper()} enabled")

        monkeypatch.setattr(torch, "empty", empty)

    return pretend


@pytest.mark.parametrize(("here", "device"), [
    ({}, "cpu"), ({"mps": 1}, "mps"), ({"xpu": 2}, "xpu"), ({"xpu": 1, "mps": 1}, "xpu"),
    ({"cuda": 4, "mps": 1}, "cuda"),
])  # fmt: skip
def test_auto_is_the_accelerator(machine, here, device):
    machine(**here)
    assert choose_device("auto") == torch.device(device)


@pytest.mark.parametrize(("name", "rank", "device"), [
    ("cuda:1", None, "cuda:1"), ("cuda", None, "cuda"), ("cuda", "1", "cuda:1"), ("auto", "1", "cuda:1"),
    ("cuda:0", "1", "cuda:0"), ("mps", "1", "mps"), ("xpu", "1", "xpu:1"), ("cpu", "1", "cpu"),
    ("mps:0", None, "mps:0"),
])  # fmt: skip
def test_what_is_here_is_taken(machine, monkeypatch, name, rank, device):
    """By name, by number, and of several processes each its own."""
    machine(cuda=2, xpu=2, mps=1)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device(name) == torch.device(device)


@pytest.mark.parametrize(("name", "sentence"), [
    ("gpu", "torch knows no such device; here are auto, cuda:0, cuda:1, mps, cpu"),
    ("", "torch knows no such device; here are auto, cuda:0, cuda:1, mps, cpu"),
    ("cuda:-1", "torch knows no such device (did you mean cuda:1?); here are auto, cuda:0, cuda:1, mps, cpu"),
    ("CPU", "torch knows no such device (did you mean cpu?); here are auto, cuda:0, cuda:1, mps, cpu"),
    ("cuda:2", "it is not here (did you mean cuda:1?); here are auto, cuda:0, cuda:1, mps, cpu"),
    ("mps:1", "it is not here (did you mean mps?); here are auto, cuda:0, cuda:1, mps, cpu"),
    ("cpu:1", "it is not here (did you mean cpu?); here are auto, cuda:0, cuda:1, mps, cpu"),
    ("meta", "it is not here; here are auto, cuda:0, cuda:1, mps, cpu"),
    ("xpu", "Torch not compiled with XPU enabled; here are auto, cuda:0, cuda:1, mps, cpu"),
])  # fmt: skip
def test_what_is_not_here_is_refused(machine, name, sentence):
    machine(cuda=2, mps=1)
    with pytest.raises(ValueError, match=f"^{re.escape(f'--device={name}: {sentence}')}$"):
        choose_device(name)


@pytest.mark.parametrize("error", [NotImplementedError("Could not run 'aten::empty'"), ImportError("No module"),
                                   AssertionError("Torch not compiled with CUDA enabled"),
                                   RuntimeError("Found no NVIDIA driver\nmore of it")])  # fmt: skip
def test_what_torch_says_of_one_that_fails(machine, monkeypatch, error):
    machine(cuda=1)

    def fail(*shape, device):
        raise error

    monkeypatch.setattr(torch, "empty", fail)
    why = str(error).partition("\n")[0]
    why = "this torch does not compute there" if isinstance(error, NotImplementedError | ImportError) else why
    with pytest.raises(ValueError, match=f"^--device=cuda: {why}; here are auto, cuda, cpu$"):
        choose_device("cuda")


@pytest.mark.skipif(not sim.available, reason="this torch has no interface for devices written in Python")
def test_a_registered_backend_is_taken():
    sim.install()
    assert choose_device(sim.NAME) == torch.device(sim.NAME)
    with pytest.raises(ValueError, match=rf"--device=simm: .*did you mean sim.*here are auto, .*{sim.NAME}, cpu$"):
        choose_device("simm")


def test_several_processes_need_a_device_that_joins_them(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="torchrun started 2 processes, and on mps one computes alone"):
        World.start(torch.device("mps"))
