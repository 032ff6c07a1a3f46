"""Captured runs: a graph of operations alone gives, chunk after chunk, the samples of a run as ever."""

import copy
from contextlib import contextmanager, nullcontext, suppress
from types import SimpleNamespace

import pytest
import torch

from samplers import SAMPLERS, SCORE_SAMPLERS, generate
from samplers.calls import Watch
from samplers.loop.captured import CapturedRun, cuda_graph, may_pay
from samplers.noise.brownian import make_noise
from samplers.noise.tape import Played, Tape
from sde import VPSDE, Denoiser
from sde.guidance import ClassifierFree, Conditional, GuidanceInterval
from sde.inverse import Mask
from sde.inverse.posterior import Replacement
from sde.networks import MLP
from tests.batteries.tiers import ADAPTIVE
from tests.batteries.variants import VARIANTS
from tests.oracles import simulated_device as sim
from tests.oracles.graph import graph

FIXED = [name for name in VARIANTS if not getattr(VARIANTS[name], "adaptive", False)]
LABELS = torch.arange(11) % 3


@pytest.fixture
def anywhere(monkeypatch):
    """Runs are captured on this device as well, as graphs of the oracle."""
    monkeypatch.setattr("samplers.loop.captured.cuda_graph", graph)
    monkeypatch.setattr("samplers.loop.generate.may_pay", lambda model, sampler, device, chunks, steps: chunks >= 3)


def denoiser():
    torch.manual_seed(0)
    model = Denoiser(MLP((3,), 3, width=8, layers=1), VPSDE(), event_shape=(3,))
    for parameter in model.parameters():
        parameter.data.copy_(0.3 * torch.randn_like(parameter))
    return model.eval()


def both(model, sampler, **options):
    options = {"steps": 3, "batch_size": 3} | options
    plain = generate(model, sampler, 11, (3,), **options)
    return plain, generate(model, sampler, 11, (3,), compile=True, **options)


@pytest.mark.parametrize("name", FIXED)
def test_samples_of_every_sampler_are_the_same(anywhere, name):
    plain, found = both(denoiser(), VARIANTS[name])
    assert torch.equal(plain.x, found.x)
    assert torch.equal(plain.nfe, found.nfe)


@pytest.mark.parametrize("kind", ["conditional", "classifier-free", "interval"])
def test_each_chunk_has_the_conditions_of_its_own_rows(anywhere, kind):
    free = ClassifierFree(denoiser(), LABELS, 2.0)
    model = {"conditional": Conditional(denoiser(), LABELS), "classifier-free": free,
             "interval": GuidanceInterval(free, 0.3, 3.0)}[kind]  # fmt: skip
    plain, found = both(model, SAMPLERS["ancestral"](), noise="brownian")
    assert torch.equal(plain.x, found.x)


@pytest.mark.parametrize("kind", ["independent", "brownian"])
def test_a_tape_plays_what_was_asked_for(kind):
    x, times = torch.zeros(3, 2), torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64)

    def asked(noise):
        first, second = noise.between(times[0], times[1]), noise.between(times[1], times[2])
        return [noise(x), first(x), first.uniform(x), second.uniform(x), second(x), second(x), noise.uniform(x)]

    tape = Tape(make_noise(kind, range(3), VPSDE()))
    asked(tape)
    for seeds in (range(3), range(5, 8)):
        played = Played(tape.draws)
        # The tape itself holds what was asked for, no numbers.
        assert {draw.like.untyped_storage().nbytes() for draw in tape.draws} <= {4, 8}
        played.fill(make_noise(kind, seeds, VPSDE()))
        for one, other in zip(asked(played), asked(make_noise(kind, seeds, VPSDE())), strict=True):
            assert torch.equal(one, other)


def test_runs_from_data(anywhere):
    start = torch.randn(11, 3)
    plain, found = both(denoiser(), SAMPLERS["ancestral"](), start=start, start_time=0.5)
    assert torch.equal(plain.x, found.x)


def test_each_chunk_has_its_own_measurements(anywhere):
    model = Replacement(denoiser(), Mask(torch.tensor([True, False, False]), (3,)), torch.arange(11.0)[:, None])
    plain, found = both(model, SAMPLERS["ancestral"]())
    assert torch.equal(plain.x, found.x)


class Scaled(Denoiser):
    """A score model that is bound to its rows by numbers of Python."""

    scales = tuple(range(11))

    def rows(self, index):
        bound = copy.copy(self)
        bound.scales = [self.scales[i] for i in index]
        return bound


def test_what_cannot_be_captured_runs_as_ever(anywhere, monkeypatch):
    """What is bound to the rows is looked at before anything is captured."""
    monkeypatch.setattr("samplers.loop.captured.cuda_graph", None)
    model = denoiser()
    model.__class__ = Scaled
    with pytest.warns(RuntimeWarning, match="could not be captured as one graph .a list that is bound .*: going on"):
        plain, found = both(model, SAMPLERS["ancestral"]())
    assert torch.equal(plain.x, found.x)


def test_padded_runs_are_not_captured(anywhere, monkeypatch):
    """Where their items are real is sent to the device within each chunk's run."""
    monkeypatch.setattr("samplers.loop.generate.may_pay", None)
    monkeypatch.setattr("samplers.loop.generate.compiled", lambda model, varying: nullcontext())
    plain, found = both(denoiser(), SAMPLERS["ancestral"](), sizes=[1, 2, 3, 3, 2, 1, 3, 3, 3, 3, 1])
    assert torch.equal(plain.x, found.x)


def test_chunks_that_were_halved_are_captured_anew(anywhere, monkeypatch):
    class Hungry(MLP):
        def forward(self, x, c_noise, cond=None):
            if len(x) > 2:
                raise torch.OutOfMemoryError(f"{len(x)} rows")
            return super().forward(x, c_noise, cond)

    captured = []
    monkeypatch.setattr(
        "samplers.loop.captured.cuda_graph", lambda *arguments: captured.append(arguments) or graph(*arguments)
    )
    model = denoiser()
    plain = generate(model, SAMPLERS["ancestral"](), 11, (3,), steps=3, batch_size=2)
    model.network.__class__ = Hungry
    with pytest.warns(RuntimeWarning, match="out of memory with 4 samples at once"):
        found = generate(model, SAMPLERS["ancestral"](), 11, (3,), steps=3, batch_size=4, compile=True)
    assert torch.equal(plain.x, found.x)
    assert len(captured) == 1


class Cuda:
    """What of ``torch.cuda`` a capture asks for: a current device and its stream, and a capture that ends as torch's,
    which leaves its stream the current one where it fails."""

    def __init__(self):
        self.now, self.streams, self.pools, self.captured = 0, {0: "default", 1: "default"}, set(), []
        self.CUDAGraph = lambda: SimpleNamespace(replay=None)
        self.graph_pool_handle = lambda: (0, 1)
        self.current_device = lambda: self.now
        self.current_stream = lambda: self.streams[self.now]
        self.Stream = lambda: "own"
        self.set_stream = lambda stream: self.streams.update({self.now: stream})

    @contextmanager
    def device(self, device):
        before, self.now = self.now, device.index
        yield
        self.now = before

    @contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        self.captured.append((self.now, capture_error_mode))
        before, self.streams[self.now] = self.streams[self.now], stream
        self.pools.add((self.now, pool))
        yield
        self.streams[self.now] = before
        self.pools.clear()


def test_a_capture_is_its_devices_own_and_leaves_no_trace(monkeypatch):
    cuda = Cuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    end = lambda device, pool: cuda.pools.remove((device, pool))  # noqa: E731
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)

    def failing():
        assert cuda.streams == {0: "default", 1: "own"}
        raise RuntimeError("not permitted")

    with suppress(RuntimeError):
        cuda_graph(failing, torch.device("cuda:1"))
    assert cuda_graph(lambda: 7, torch.device("cuda:1"))[1] == 7
    assert cuda.captured == [(1, "thread_local")] * 2
    assert (cuda.streams, cuda.pools) == ({0: "default", 1: "default"}, set())


def test_a_network_that_reads_back_runs_as_ever(anywhere):
    class Reading(MLP):
        def forward(self, x, c_noise, cond=None):
            return super().forward(x, c_noise, cond) * (1 if x.abs().max() > 100 else 0.5)

    model = denoiser()
    model.network.__class__ = Reading
    with pytest.warns(RuntimeWarning, match="not permitted when stream is capturing.*: going on without"):
        plain, found = both(model, SAMPLERS["ancestral"]())
    assert torch.equal(plain.x, found.x)


def test_noise_that_does_not_fit_runs_as_ever(anywhere, monkeypatch):
    monkeypatch.setattr("samplers.loop.captured.MOST_BYTES", 10)
    with pytest.warns(RuntimeWarning, match="its noise takes"):
        plain, found = both(denoiser(), SAMPLERS["ancestral"]())
    assert torch.equal(plain.x, found.x)


def test_the_first_chunks_own_error_is_raised(anywhere):
    model = denoiser()
    model.network.head.bias.data.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match="non-finite"):
        generate(model, SAMPLERS["ddim"](), 11, (3,), steps=3, batch_size=3, compile=True)


def test_which_runs_are_captured():
    model, cuda = denoiser(), torch.device("cuda")
    assert may_pay(model, SAMPLERS["heun"](), cuda, 3, 250)
    assert not may_pay(model, SAMPLERS["heun"](), cuda, 3, 251)
    assert not may_pay(model, SAMPLERS["heun"](), cuda, 2, 20)
    assert not may_pay(model, SAMPLERS["heun"](), torch.device("cpu"), 3, 20)
    assert not any(may_pay(model, SAMPLERS[name](), cuda, 3, 20) for name in ADAPTIVE)
    model.network.compile(backend="eager")
    assert not may_pay(model, SAMPLERS["heun"](), cuda, 3, 20)


@pytest.mark.skipif(not sim.available, reason="this torch has no interface for devices written in Python")
@pytest.mark.parametrize("name", [name for name in FIXED if name in SCORE_SAMPLERS])
def test_what_is_captured_neither_waits_nor_sends(name):
    """Of a run on a device: what is captured reads nothing back from it, and sends nothing there."""
    sim.install()
    seen = {}

    def capture(function, device):
        assert device.type == sim.NAME
        with sim.watching() as watched:
            end = function()
        seen.update(waits=watched.waits, sent=watched.sent, launches=sum(watched.launches.values()))
        return lambda: None, end

    model = ClassifierFree(denoiser().to(sim.NAME), LABELS[:4], 2.0)
    sampler = VARIANTS[name]
    times = torch.tensor([1.0, 0.6, 0.3, 0.001], dtype=torch.float64)
    run = CapturedRun(sampler, times, capture)
    x = torch.randn(4, 3).to(sim.NAME)
    with torch.no_grad():
        for _ in range(2):
            with Watch(model, 4) as watch:
                run(model, x, make_noise("independent", range(4), model.sde), watch)
    assert seen["launches"] > 0
    assert (seen["waits"], seen["sent"]) == ([], 0)
