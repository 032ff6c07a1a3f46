"""Networks: passes and training steps, eager and compiled, beside those of diffusers."""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks import peers
from benchmarks.fast.card import Work, limits, precise, work_of
from benchmarks.fast.subject import Subject, subject
from benchmarks.measure import interleaved, seconds
from benchmarks.sections import Setting
from samplers.compiled import attach
from score_sde.config.options import PRECISIONS
from score_sde.training.memory import peak_memory
from score_sde.training.precision import apply

PASSES = ("forward", "training step")
Passes = tuple[Callable[[], object], Callable[[], object]]
"""The functions of PASSES."""


@dataclass(frozen=True)
class Way:
    """A way to pass through a network: ``make(batch, backend)`` gives its passes, compiled by a backend of torch or by
    none. ``precision`` is that in which it multiplies, a key of the card's peaks."""

    name: str
    precision: str
    make: Callable[[int, str | None], Passes]


def ours(held: Subject, precision: str, memory_format: str, batch: int, backend: str | None) -> Passes:
    """Passes of a copy of the network. ``precision`` TF32 is float32 with it in convolutions and matrix products; in
    float32 it is in neither."""
    model, cast = held.copy(), "float32" if precision == "TF32" else precision
    apply(model, cast, memory_format)
    if backend:
        # As training does: captured where the device is one of CUDA.
        attach(model.network, held.device.type == "cuda", backend)
    run, (x, cond) = held.trainer(model, batch), held.inputs(batch)
    t = torch.tensor(0.5, dtype=torch.float64)

    @torch.no_grad()
    def forward() -> None:
        with precise(precision):
            model.eval()(x, t, cond)

    def train() -> None:
        with precise(precision):
            run.training_step()

    return forward, train


def theirs(held: Subject, precision: str, batch: int, backend: str | None) -> Passes:
    """Passes of diffusers' network of the same size."""
    model = peers.unet(held.config.model.network, held.data.event_shape).to(held.device)
    if backend:
        model.compile(backend=backend, dynamic=False)
    return peers.passes(model, held.inputs(batch)[0], PRECISIONS[precision])


def our_ways(held: Subject, channels_last: bool) -> list[Way]:
    """The ways through a network of ours, the quickest on a GPU last."""
    formats = ["contiguous", *["channels_last"] * channels_last]
    precisions = [*["TF32"] * (held.device.type == "cuda"), "bfloat16"]
    kinds = [("float32", "contiguous"), *((p, f) for p in precisions for f in formats)]
    return [Way(f"{p} {f.replace('_', '-')}", p, partial(ours, held, p, f)) for p, f in kinds]


def their_ways(held: Subject) -> list[Way]:
    """Those of diffusers: as its users have it, and under autocast."""
    # torch takes TF32 in convolutions, unless told otherwise.
    kinds = {"float32": "TF32", "bfloat16": "bfloat16"}
    return [Way(f"diffusers {p}", kind, partial(theirs, held, p)) for p, kind in kinds.items()]


def work(way: Way, batch: int) -> tuple[Work, ...]:
    """What the passes of a way do, from counts on a few items and on twice as many."""
    few = min(4, batch // 2)
    one, two = ([work_of(function) for function in way.make(count, None)] for count in (few, 2 * few))
    return tuple(a.beyond(b, batch / few - 1) for a, b in zip(one, two, strict=True))


def memory(function: Callable[[], object], device: torch.device) -> float | None:
    """Peak memory of function() beyond what is held in any case, in GiB; None where torch does not tell."""
    if device.type != "cuda":
        return None
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    function()
    return (peak_memory(device) - held) / 2**30


def measured(
    ways: list[Way], held: Subject, setting: Setting, passes: Sequence[str] = PASSES, backend: str | None = None
) -> Iterator[dict]:
    """A row for each of the passes of each way, of medians in the same turns."""
    try:
        counted, card = {way.name: work(way, held.batch) for way in ways}, limits(setting)
        made = {way.name: way.make(held.batch, backend) for way in ways}
        for kind in passes:
            i = PASSES.index(kind)
            functions = {name: both[i] for name, both in made.items()}
            # The first ones compile.
            first = {name: seconds(function, held.device) for name, function in functions.items()}
            needed = {name: memory(function, held.device) for name, function in functions.items()}
            taken = interleaved(functions, held.device, setting.of(5, 2))
            for way in ways:
                done = counted[way.name][i]
                precision = way.precision if way.precision in card.peaks else "float32"
                yield {
                    "pass": kind,
                    "way": f"{way.name}{', compiled' if backend else ''}",
                    "ms/image": 1000 * taken[way.name] / held.batch,
                    "images/s": held.batch / taken[way.name],
                    "% of peak": 100 * done.operations / taken[way.name] / card.peaks[precision],
                    **{key: value / held.batch for key, value in card.roof(done, precision).items()},
                    "GiB": needed[way.name],
                    "first, s": first[way.name],
                }
    finally:
        held.close()


def compared(setting: Setting, held: Subject, ours: list[Way], theirs: list[Way]) -> Iterator[dict]:
    """Rows of all ways eager, and of the training step of the last of each compiled."""
    yield from measured([*ours, *theirs], held, setting)
    for ways in (ours, theirs):
        gc.collect()
        # One after the other, since each takes its time to compile: what has run out of it leaves the first.
        yield from measured(ways[-1:], held, setting, PASSES[1:], setting.backend)


def unet(setting: Setting) -> Iterator[dict | str]:
    """The U-Net of CIFAR-10's shape, batch 256, beside diffusers' of the same size: figures per image, and what its
    operations and bytes take at best; bytes as without fusion."""
    held, absent = subject("cifar10", setting, 256), peers.absent()
    ways = our_ways(held, channels_last=True)
    yield from compared(setting, held, setting.of(ways, ways[:1] + ways[-1:]), [] if absent else their_ways(held))
    if absent:
        yield absent


def dit(setting: Setting) -> Iterator[dict]:
    """The transformer of cifar10_dit, batch 256: figures per image, and what its operations and bytes take at best."""
    held = subject("cifar10_dit", setting, 256)
    yield from compared(setting, held, our_ways(held, channels_last=False), [])
