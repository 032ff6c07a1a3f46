"""What benchmarks/device.py asks to be right of a device, in its smallest form, and what it tells where it is not."""

import contextlib
import copy
import importlib
import sys
import zipfile

import pytest
import torch

from benchmarks import device, fast, right, sections, wheels
from benchmarks.report import shown
from benchmarks.right.processes import Alone
from benchmarks.sections import Check, LeftOut, Section, Setting, run
from samplers import DDIM, Ancestral, DPMSolverPP, SeededNoise
from samplers.compiled import CompiledBody
from samplers.likelihood import flow
from samplers.loop import generate
from sde.checkpoint.states import Checkpoints
from sde.model.denoiser import Denoiser
from tests.oracles.exact import GaussianMixture

CPU = Setting(torch.device("cpu"), "smallest")


def rows(name):
    try:
        yield from right.SECTIONS[name].run(CPU)
    except LeftOut as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", right.SECTIONS)
def test_right(name):
    found = list(rows(name))
    assert found
    assert [row for row in found if not row.passed] == []


def only_in_float32(step, factor=1.001):
    """A step that is wrong by a factor where x is float32."""

    def spoilt(self, model, x, *rest):
        x, carry = step(self, model, x, *rest)
        return (factor * x if x.dtype == torch.float32 else x), carry

    return spoilt


def wrong_coefficient(patch):
    patch.setattr(Ancestral, "step", only_in_float32(Ancestral.step))
    return "ancestral"


def wrong_coefficient_with_guidance(patch):
    patch.setattr(DPMSolverPP, "step", only_in_float32(DPMSolverPP.step))
    return "replacement"


def wrong_divergence(patch):
    exact = flow.exact_divergence

    def spoilt(velocity, x, *rest):
        return exact(velocity, x, *rest) * (1.01 if x.dtype == torch.float32 else 1)

    patch.setattr(flow, "exact_divergence", spoilt)
    return "exact likelihood"


def wrong_network(patch):
    call = Denoiser.forward

    def spoilt(self, x, t, cond=None):
        return call(self, x, t, cond) * (1.02 if x.dtype == torch.float32 else 1)

    patch.setattr(Denoiser, "forward", spoilt)


def wrong_mixture(patch):
    call = GaussianMixture.forward

    def spoilt(self, x, t):
        return call(self, x, t) * (1.2 if x.dtype == torch.float32 else 1)

    patch.setattr(GaussianMixture, "forward", spoilt)


def read_back(patch):
    step = DDIM.step

    def spoilt(self, model, x, *rest):
        x.sum().item()
        return step(self, model, x, *rest)

    patch.setattr(DDIM, "step", spoilt)
    return "a sampler's loop"


def lost_state(patch):
    load = Checkpoints.load

    def spoilt(self, *like):
        state, passed = load(self, *like)
        state = copy.deepcopy(state)
        first = state["optimizer"]["state"][0]
        first["exp_avg"] = torch.zeros_like(first["exp_avg"])
        return state, passed

    patch.setattr(Checkpoints, "load", spoilt)
    return "ended and continued"


def wrong_replica(patch):
    patch.setattr(Alone, "mean", lambda self, x: 1.001 * x)
    return "ddp"


def never_halved(patch):
    def spoilt(draw, index, count):
        return draw(index[:8], 8)

    patch.setattr(generate, "_unless_full", spoilt)
    return "a chunk that does not fit"


def wrong_numbers(patch):
    draw = SeededNoise.__call__

    def spoilt(self, x):
        return draw(self, x) * (1.001 if x.dtype == torch.float32 else 1)

    patch.setattr(SeededNoise, "__call__", spoilt)
    return "normal"


def wrong_graph(patch):
    call = CompiledBody.__call__
    patch.setattr(CompiledBody, "__call__", lambda self, *args: 1.01 * call(self, *args))
    return "samples"


def nothing_cast(patch):
    patch.setattr(Denoiser, "autocast", property(lambda self: None, lambda self, value: None), raising=False)
    return "samples"


SPOILT = {
    "noises": wrong_numbers,
    "samplers": wrong_coefficient,
    "guidance": wrong_coefficient_with_guidance,
    "densities": wrong_divergence,
    "plans": wrong_mixture,
    "waiting": read_back,
    "training": wrong_network,
    "resume": lost_state,
    "processes": wrong_replica,
    "memory": never_halved,
    "compiling": wrong_graph,
    "precision": nothing_cast,
}
"""A mistake for each section, which returns the group of checks that must see it, or None for any."""


@pytest.mark.parametrize("name", right.SECTIONS)
def test_what_is_wrong_is_told(name, monkeypatch):
    # What is asked on both sides is made before.
    group = SPOILT[name](monkeypatch)
    failed = (row for row in rows(name) if not row.passed)
    first = next(failed, None)
    assert first is not None
    assert group in (None, first.group)


def wheel(folder, name, tag="py3-none-any"):
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as archive:
        archive.writestr(f"{name}/__init__.py", "from pathlib import Path\ntext = Path(__file__).parent / 'a.txt'")
        archive.writestr(f"{name}/a.txt", "of a file")
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", "")


def test_wheels_are_found(tmp_path, monkeypatch):
    """Their files as well; what is installed comes first."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("of_a_wheel", "torch"):
        wheel(tmp_path, name)
    assert wheels.provide(tmp_path) == ["of_a_wheel"]
    assert importlib.import_module("of_a_wheel").text.read_text() == "of a file"
    assert wheels.provide(tmp_path / "none") == []
    monkeypatch.setattr(wheels, "NEEDED", ("no_such_package",))
    with pytest.raises(ValueError, match=r"no_such_package: neither installed nor among the wheels .* `make wheels`"):
        wheels.provide(tmp_path)
    wheel(tmp_path, "of_one_machine", "cp311-cp311-linux_x86_64")
    with pytest.raises(ValueError, match=r"of_one_machine.*: needs a wheel of pure Python"):
        wheels.provide(tmp_path)


def test_sections_that_fail_are_named():
    def broken(setting):
        yield Check("a", "b", 1.0, 2.0)
        raise RuntimeError("it broke\nhere")

    def wrong(setting):
        yield Check("a", "b", float("nan"), 2.0)

    def left_out(setting):
        yield Check("a", "b", 1.0, 2.0)
        raise LeftOut("no such thing here")

    found = {f: run(f.__name__, Section(f, 5.5), CPU, 100) for f in (broken, wrong, left_out)}
    assert [result.outcome for result in found.values()] == ["failed", "failed", "left out"]
    assert found[broken].sentence == "RuntimeError: it broke"
    assert "a, b: nan, allowed 2.0e+00" in found[wrong].sentence
    late = run("late", Section(broken, 9), CPU, 1)
    assert late.outcome == "failed"
    assert "no time was left" in late.sentence
    text = shown(found[wrong])
    assert "WRONG" in text
    assert "FAILED: 1 of 1 checks" in text


def test_sections_share_the_time_of_the_whole():
    """Each has its part where all need theirs, and what one leaves is that of the others."""
    every = [*right.SECTIONS.values(), *fast.SECTIONS.values()]
    assert sum(section.seconds for section in every) == sections.WHOLE
    left = sections.WHOLE
    for number, section in enumerate(every, 1):
        its = sections.share(section, every[number:], left)
        assert its == pytest.approx(section.seconds)
        left -= its
    assert sections.share(every[0], every[1:3], 10.0) == pytest.approx(10 * 4 / (4 + 20 + 12))


def test_a_cuda_device_has_a_number(monkeypatch):
    current = [3]
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.append(device.index))
    assert device.numbered(torch.device("cuda")) == torch.device("cuda:3")
    assert device.numbered(torch.device("cuda:1")) == torch.device("cuda:1")
    assert device.numbered(torch.device("cpu")) == torch.device("cpu")
    assert current == [3, 3, 1]


def test_a_section_ends_with_its_time(monkeypatch):
    def endless(setting):
        yield {"way": "the first", "ms": 1.5}
        while True:
            with contextlib.suppress(Exception):
                pass

    monkeypatch.setattr(sections, "ENOUGH", 0.0)
    found = run("endless", Section(endless, 1), CPU, 0.05)
    assert found.outcome == "failed"
    assert "not done after its" in found.sentence
    assert "| the first | 1.5 |" in shown(found)
