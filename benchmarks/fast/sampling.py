"""Sampling: runs over their bare network calls, eager, compiled and captured."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.fast.subject import Subject, subject
from benchmarks.measure import interleaved
from benchmarks.sections import Setting
from samplers import SAMPLERS, compiled, generate
from samplers.calls import evaluating
from score_sde.training.precision import apply
from sde import Denoiser
from sde.guidance import Conditional

STEPS = 20


def bare(model: Denoiser, x: Tensor, labels: Tensor | None, calls: int) -> Callable[[], None]:
    """As many calls of the network alone."""
    c_noise, cond = x.new_zeros(len(x)), None if labels is None else {"labels": labels}

    @torch.no_grad()
    def run() -> None:
        with evaluating(model), torch.autocast(x.device.type, model.autocast, enabled=model.autocast is not None):
            for _ in range(calls):
                model.network(x, c_noise, cond)

    return run


def captured(function: Callable[[], None]) -> Callable[[], None]:
    """The kernels of a function as one CUDA graph, to be replayed."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def runs(
    held: Subject,
    names: tuple[str, ...],
    setting: Setting,
    *,
    graphs: str | None = None,
    capture: bool = False,
) -> Iterator[dict]:
    """Rows of samplers of a network, eager or compiled: their time over that of as many bare calls of it, which are
    compiled as well, and over these calls captured as one CUDA graph, which are not."""
    (x, labels), steps = held.inputs(), setting.of(STEPS, 3)
    model = held.model if labels is None else Conditional(held.model, labels)
    functions = {
        name: partial(generate, model, SAMPLERS[name](), held.batch, held.data.event_shape, steps=steps)
        for name in names
    }
    calls = {name: round(run().mean_nfe) for name, run in functions.items()}
    functions["bare"] = bare(held.model, x, labels, steps)
    if capture and held.device.type == "cuda":
        functions["graph"] = captured(functions["bare"])
    with compiled(model, backend=graphs) if graphs else nullcontext():
        taken = interleaved(functions, held.device, setting.of(5, 2))
    for name in names:
        share = calls[name] / steps
        yield {
            "run": f"{'compiled' if graphs else 'eager'} {name}",
            "calls": calls[name],
            "ms": 1000 * taken[name],
            "images/s": held.batch / taken[name],
            "ms a bare call": 1000 * taken["bare"] / steps,
            "over bare calls": taken[name] / (share * taken["bare"]),
            "over their captured graph": taken[name] / (share * taken["graph"]) if "graph" in taken else None,
        }


def captured_runs(held: Subject, names: tuple[str, ...], setting: Setting) -> Iterator[dict]:
    """Rows of runs with ``compile=True`` of a network so small that CUDA captures them as a whole: what a further chunk
    takes, over the bare calls captured as one graph. None where there is no CUDA."""
    if held.device.type != "cuda":
        return
    (x, labels), steps, chunks = held.inputs(), setting.of(STEPS, 3), (4, 12)
    replay = captured(bare(held.model, x, labels, steps))
    for name in names:
        # Of no class: what is bound has a row for each of all samples.
        run = partial(generate, held.model, SAMPLERS[name](), event_shape=held.data.event_shape, steps=steps,
                      batch_size=held.batch, compile=True)  # fmt: skip
        functions = {count: partial(run, n=count * held.batch) for count in chunks}
        calls = round(functions[chunks[0]]().mean_nfe)
        taken = interleaved({**functions, "graph": replay}, held.device, setting.of(5, 2))
        further = (taken[chunks[1]] - taken[chunks[0]]) / (chunks[1] - chunks[0])
        yield {
            "run": f"captured {name}, a further chunk",
            "calls": calls,
            "ms": 1000 * further,
            "images/s": held.batch / further,
            "over their captured graph": further / (calls / steps * taken["graph"]),
        }


def sampling(setting: Setting) -> Iterator[dict | str]:
    """256 images of CIFAR-10's shape in 20 steps, bfloat16 channels-last: samplers over their bare network calls.

    Beside them diffusers' pipelines with a network of the same size, under bfloat16 autocast as well.
    """
    held = subject("cifar10", setting, 256)
    apply(held.model, "bfloat16", "channels_last")
    yield from runs(held, ("ddim", "ancestral", "dpmpp"), setting)
    yield from runs(held, ("ddim", "ancestral"), setting, graphs=setting.backend)
    absent, steps = peers.absent(), setting.of(STEPS, 3)
    if absent:
        yield absent
        return
    network = peers.unet(held.config.model.network, held.data.event_shape).to(held.device).eval()
    schedulers = {"DDIM": "DDIMScheduler", "DPM++": "DPMSolverMultistepScheduler"}
    drawn = {f"diffusers {name}": peers.pipeline(network, kind, held.batch, steps) for name, kind in schedulers.items()}
    for name, taken in interleaved(drawn, held.device, setting.of(3, 1)).items():
        yield {"run": name, "calls": steps, "ms": 1000 * taken, "images/s": held.batch / taken}


def sampling_dit(setting: Setting) -> Iterator[dict]:
    """256 images of the transformer of cifar10_dit in 20 steps, bfloat16: samplers over their bare network calls."""
    held = subject("cifar10_dit", setting, 256)
    apply(held.model, "bfloat16", "contiguous")
    for graphs in (None, setting.backend):
        yield from runs(held, ("ddim", "ancestral"), setting, graphs=graphs)


def small_models(setting: Setting) -> Iterator[dict]:
    """Models of the size of digits and points, where starting kernels is all the time: eager, compiled, captured."""
    for name, batch in setting.of((("digits", 64), ("points", 256)), (("points", 256),)):
        held = subject(name, setting, batch)
        for graphs in (None, setting.backend):
            for row in runs(held, ("ddim", "ancestral", "dpmpp", "pc"), setting, graphs=graphs, capture=True):
                yield {"model": name, **row}
        for row in captured_runs(held, ("ddim", "ancestral"), setting):
            yield {"model": name, **row}
