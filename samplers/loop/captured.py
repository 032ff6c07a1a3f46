"""A captured run: the steps of a whole run as one CUDA graph, for chunk after chunk of samples."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from samplers.calls import Watch
from samplers.compiled import bodies, is_compiled
from samplers.loop.sample import points, run
from samplers.noise.tape import Draw, Played, Tape
from samplers.protocol import Noise
from samplers.step import Sampler

Capture = Callable[[Callable[[], Tensor], torch.device], tuple[Callable[[], None], Tensor]]
"""What makes a graph of a function on a device: one that replays it, and the tensor that then holds its result."""

MOST_PARAMETERS = 10_000_000
"""Parameters up to which a run is captured as a whole: there a device waits for the CPU, which starts its kernels."""

LEAST_CHUNKS = 3
"""The first chunk of a run shows what it asks for, the second is captured, and those that follow gain."""

MOST_STEPS = 250
"""Steps beyond which a run is not captured, as a graph holds each kernel of all of them."""

MOST_BYTES = 2**31
"""Bytes of noise beyond which a run is not captured."""


def may_pay(model: nn.Module, sampler: Sampler, device: torch.device, chunks: int, steps: int) -> bool:
    """Whether to capture a run as a whole: of small networks on CUDA that nobody has compiled, where there are chunks
    enough, and not too many steps. Adaptive solvers look at numbers on their way, and cannot be captured."""
    adaptive, held = getattr(sampler, "adaptive", False), any(map(is_compiled, bodies(model)))
    fits = chunks >= LEAST_CHUNKS and steps <= MOST_STEPS
    return device.type == "cuda" and is_small(model) and fits and not (adaptive or held)


def is_small(model: nn.Module) -> bool:
    """Whether runs of a model are captured as a whole, where that is possible."""
    return sum(p.numel() for p in model.parameters()) <= MOST_PARAMETERS


def cuda_graph(function: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], None], Tensor]:
    """A function as a CUDA graph: captured, not yet run. Other threads may use the device meanwhile. Where function()
    cannot be captured, an error is raised, and stream and allocator are as they were."""
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    with torch.cuda.device(device):
        before, own = torch.cuda.current_stream(), torch.cuda.Stream()
        try:
            with torch.cuda.graph(graph, pool, own, capture_error_mode="thread_local"):
                result = function()
        except Exception:
            # A failed capture leaves its stream the current one, and in older torch the allocator in its pool.
            torch.cuda.set_stream(before)
            for name in ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"):
                with suppress(AttributeError, RuntimeError):
                    getattr(torch._C, name)(torch.cuda.current_device(), pool)
            raise
    return graph.replay, result


class Graph(NamedTuple):
    """A captured run: the tensors that it reads, states ``x``, noise, and what is bound to the rows of its model; what
    replays it; and the tensor that then holds its ``end``."""

    model: Any
    x: Tensor
    noise: Played
    replay: Callable[[], None]
    end: Tensor


class CapturedRun:
    """A run of a sampler from states x, of one shape, to their ends, by a model bound to as many rows each time.

    The first call runs as ever, and shows what noise is asked for. The second is captured, with the coefficients of
    steps as constants of the graph; each call from then on fills its tensors, the states, the noise and what is bound
    to the rows, and replays it. Values are those of the first kind of call. Raises what hinders the second call from
    being captured: ValueError, before anything is captured, where what is bound to the rows is no tensor on the device,
    or where the noise does not fit into MOST_BYTES; RuntimeError of torch.
    """

    def __init__(self, sampler: Sampler, times: Tensor, capture: Capture | None = None) -> None:
        self.sampler, self.times, self.capture = sampler, times, capture or cuda_graph
        self.nfe: Tensor | None = None
        self.failed = False
        # Of the first call, until the second has been captured.
        self._shown: tuple[Any, list[Draw]] | None = None
        self._graph: Graph | None = None

    def __call__(self, model, x: Tensor, noise: Noise, watch: Watch) -> Tensor:
        """The ends (B, *inner) of x at the first of the times. ``watch`` watches the model; ``nfe`` is what it counted
        in the first call, and so in each."""
        graph = self._graph
        if graph is None:
            if self._shown is None:
                # Once, as what is sent to the device of them may not be sent again.
                self.points, tape = points(model.sde, self.times), Tape(noise)
                end = self._run(model, x, tape, watch)
                self._shown, self.nfe = (model, tape.draws), watch.nfe
                return end
            self._graph = graph = self._captured(model, x, *self._shown, watch)
            self._shown = None
        graph.x.copy_(x)
        graph.noise.fill(noise)
        for held, new in bound(graph.model, model, x.device):
            held.copy_(new)
        graph.replay()
        return graph.end.clone()

    def tried(self, call: Callable[[], Tensor]) -> Tensor | None:
        """What a call of this run returns, or None, once with a warning, where it cannot be captured: then the same is
        to be run as ever, from the beginning, as its noise was drawn."""
        if self.failed:
            return None
        first = self.nfe is None
        try:
            return call()
        except (RuntimeError, ValueError) as error:
            if first:
                raise
            self.failed, self._graph, self._shown = True, None, None
            reason = str(error).strip().partition("\n")[0]
        message = f"the run could not be captured as one graph ({reason}): going on without"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None

    def _captured(self, model, x: Tensor, first: Any, draws: list[Draw], watch: Watch) -> Graph:
        # What is bound to other rows must fit in, so that the third call finds nothing new.
        for _ in bound(first, model, x.device):
            pass
        size = sum(draw.like.nbytes for draw in draws)
        if size > MOST_BYTES:
            raise ValueError(f"its noise takes {size / 2**30:.1f} GiB, of {MOST_BYTES / 2**30:g} at most")
        states, played = x.clone(), Played(draws)
        capture = self.capture(lambda: self._run(model, states, played, watch), x.device)
        return Graph(model, states, played, *capture)

    def _run(self, model, x: Tensor, noise: Noise, watch: Watch) -> Tensor:
        return run(model, self.sampler, x, self.times, noise, watch, looking=False, at=self.points)


def bound(held: Any, new: Any, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors of a model that is bound to some rows, with those that are in their place in one bound to others.
    Raises ValueError where the two differ in anything else."""
    if held is new:
        return
    if isinstance(held, nn.Module) and type(held) is type(new):
        yield from bound(vars(held), vars(new), device)
    elif isinstance(held, dict) and isinstance(new, dict) and held.keys() == new.keys():
        for name, value in held.items():
            yield from bound(value, new[name], device)
    elif isinstance(held, Tensor) and isinstance(new, Tensor):
        if (held.shape, held.dtype, held.device, new.device) != (new.shape, new.dtype, device, device):
            raise ValueError(
                f"what is bound to its rows are {held.dtype} of shape {tuple(held.shape)} on {held.device}"
            )
        yield held, new
    else:
        same = False
        with suppress(Exception):
            same = bool(held == new)
        if not same:
            raise ValueError(f"a {type(held).__name__} that is bound to its rows is no tensor")
