"""Sampling: runs over their bare network calls, eager, compiled and captured."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import torch

from benchmarks import peers
from benchmarks.fast.networks import backend
from benchmarks.fast.subject import Subject, subject
from benchmarks.measure import interleaved
from benchmarks.sections import Setting
from samplers import SAMPLERS, compiled, generate
from samplers.calls import evaluating
from score_sde.training.precision import apply
from sde.guidance import Conditional

STEPS = 20


def bare(model, x, cond, calls: int) -> Callable[[], None]:
    """As many calls of the network alone."""
    c_noise = x.new_zeros(len(x))

    @torch.no_grad()
    def run() -> None:
        with evaluating(model), torch.autocast(x.device.type, model.autocast, enabled=model.autocast is not None):
            for _ in range(calls):
                model.network(x, c_noise, cond)

    return run


def captured(function: Callable[[], None], x) -> Callable[[], None] | None:
    """The kernels of a function as one CUDA graph, to be replayed; None where there is no CUDA."""
    if x.device.type != "cuda":
        return None
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def runs(held: Subject, names: tuple[str, ...], steps: int, graphs: str | None, setting: Setting) -> Iterator[dict]:
    """Rows of samplers of a network, eager or compiled: their time over that of as many bare calls of it, which are
    compiled as well, and over these calls captured as one graph, which are not."""
    x, labels = held.inputs()
    model = held.model if labels is None else Conditional(held.model, labels)
    cond = None if labels is None else {"labels": labels}
    event, count = held.data.event_shape, held.batch
    for name in names:
        run = partial(generate, model, SAMPLERS[name](), count, event, steps=steps)
        calls = round(run().mean_nfe)
        alone = bare(held.model, x, cond, calls)
        replay = captured(alone, x)
        functions = {"run": run, "bare": alone, **({"graph": replay} if replay else {})}
        with compiled(model, backend=graphs) if graphs else nullcontext():
            taken = interleaved(functions, held.device, setting.of(5, 2))
        yield {
            "run": f"{'compiled' if graphs else 'eager'} {name}",
            "calls": calls,
            "ms": 1000 * taken["run"],
            "images/s": count / taken["run"],
            "ms a bare call": 1000 * taken["bare"] / calls,
            "over bare calls": taken["run"] / taken["bare"],
            "over their captured graph": taken["run"] / taken["graph"] if replay else None,
        }


def sampling(setting: Setting) -> Iterator[dict | str]:
    """256 images of CIFAR-10's shape in 20 steps, bfloat16 channels-last: samplers over their bare network calls.

    Beside them diffusers' pipelines with a network of the same size, under bfloat16 autocast as well.
    """
    held = subject("cifar10", setting, 256)
    apply(held.model, "bfloat16", "channels_last")
    steps = setting.of(STEPS, 3)
    yield from runs(held, ("ddim", "dpmpp", "ancestral", "heun", "pc"), steps, None, setting)
    yield from runs(held, ("ddim", "ancestral"), steps, backend(setting), setting)
    absent = peers.absent()
    if absent:
        yield absent
        return
    network = peers.unet(held.config.model.network, held.data.event_shape).to(held.device).eval()
    schedulers = {"DDIM": "DDIMScheduler", "DPM++": "DPMSolverMultistepScheduler"}
    drawn = {f"diffusers {name}": peers.pipeline(network, kind, held.batch, steps) for name, kind in schedulers.items()}
    for name, taken in interleaved(drawn, held.device, setting.of(3, 1)).items():
        yield {"run": name, "calls": steps, "ms": 1000 * taken, "images/s": held.batch / taken}


def small_models(setting: Setting) -> Iterator[dict]:
    """Models of the size of digits and points, where starting kernels is all the time: eager, compiled, captured."""
    for name, batch in (("digits", 64), ("points", 256)):
        held = subject(name, setting, batch)
        for graphs in (None, backend(setting)):
            for row in runs(held, ("ddim", "ancestral", "dpmpp"), setting.of(STEPS, 5), graphs, setting):
                yield {"model": name, **row}
