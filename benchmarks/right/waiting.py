"""Waiting: where the CPU would wait for the device."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch

from benchmarks.measure import ADAPTIVE
from benchmarks.sections import Check, LeftOut, Setting
from samplers import SAMPLERS, SCORE_SAMPLERS, SeededNoise, sample
from samplers.grid import make_grid
from sde import VPSDE, Denoiser
from sde.guidance import ClassifierFree
from sde.networks import MLP
from tests.oracles import simulated_device as sim
from tests.oracles.guidances import GUIDED
from tests.sde import small_training


@contextmanager
def forbidden() -> Iterator[None]:
    """Inside, CUDA raises RuntimeError where the CPU would wait for it."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def counted() -> Iterator[None]:
    """The same of the simulated device, which raises at the end."""
    with sim.watching() as seen:
        yield
    if seen.waits:
        raise RuntimeError(f"{len(seen.waits)} waits, the first for {seen.waits[0]}")


def prepare(setting: Setting) -> None:
    """The simulated device, where there will be one, in place of the CPU: torch's backward passes know the devices that
    were there at the first of them."""
    if setting.device.type == "cpu" and sim.available:
        sim.install()


def watched(setting: Setting) -> tuple[torch.device, type[AbstractContextManager]]:
    """The device whose waits are seen, and a context in which there must be none: CUDA, or in place of the CPU a
    simulated one. Raises LeftOut where there is neither."""
    if setting.device.type == "cuda":
        return setting.device, forbidden
    if setting.device.type != "cpu":
        raise LeftOut(f"torch does not tell where the CPU waits for {setting.device.type}")
    if not sim.available:
        raise LeftOut(f"torch {torch.__version__} has no interface for devices written in Python, to simulate one")
    prepare(setting)
    return torch.device(sim.NAME), counted


class Between:
    """A callback of a run of ``steps``, to the first step and the last of which nothing is forbidden: what is made
    ready or looked at once is no wait of the loop."""

    def __init__(self, context, steps: int) -> None:
        self.context, self.last = context(), steps - 2

    def __call__(self, step: int, s, x) -> None:
        if step == 0:
            self.context.__enter__()
        if step == self.last:
            self.context.__exit__(None, None, None)


def check(group: str, name: str, function) -> Check:
    """That function() does not wait; where it does, with what torch says of it."""
    try:
        function()
    except RuntimeError as error:
        return Check(group, f"{name}: {str(error).splitlines()[0][:120]}", 1, 0)
    return Check(group, name, 0, 0)


def deaf(device: torch.device, context: type[AbstractContextManager]) -> bool:
    """Whether a read-back goes unheard in the context."""
    x = torch.ones(3).to(device)
    try:
        with context():
            x.sum().item()
    except RuntimeError:
        return False
    return True


def waiting(setting: Setting) -> Iterator[Check]:
    """Where the CPU waits for the device: in no step between a run's first and last, nor in training steps.

    On CUDA by torch's own alarm, in place of the CPU on a simulated device. 1 stands for a wait.
    """
    device, context = watched(setting)
    torch.manual_seed(0)
    model = Denoiser(MLP((3,), 3, width=16, layers=1), VPSDE(), event_shape=(3,)).eval().to(device)
    yield Check("the alarm", "1 where it does not hear a read-back", float(deaf(device, context)), 0)
    labels, steps = (torch.arange(4) % 3).to(device), setting.of(5, 5, 3)

    def loop(sampler, bound) -> None:
        times = make_grid(model.sde, sampler.grid, steps)
        noise = SeededNoise(range(len(labels)))
        x = noise(torch.empty(len(labels), 3, device=device)) * model.sde.prior_std()
        try:
            sample(bound, sampler, x, times, noise, callback=Between(context, steps))
        finally:
            if setting.device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")

    for name, factory in ((name, SAMPLERS[name]) for name in SCORE_SAMPLERS):
        if name not in ADAPTIVE:
            bound = ClassifierFree(model, labels, 2.0)
            yield check("a sampler's loop", name, partial(loop, factory(), bound))
    for name, bind in GUIDED.items():
        yield check("a guided loop", name, partial(loop, SAMPLERS["dpmpp"](), bind(model, labels)))
    run = small_training.trainer(device=device, gradient_accumulation=2)
    # The first step makes what the optimizer remembers.
    run.training_step()

    def steps_of_training() -> None:
        with context():
            for _ in range(3):
                run.training_step()

    yield check("training steps", "three", steps_of_training)
