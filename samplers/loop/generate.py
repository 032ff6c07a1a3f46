"""Generation: drawing samples, what users call."""

import time
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from samplers.calls import Watch, evaluating
from samplers.checks import (
    SampleError,
    check_event_shape,
    check_finite,
    check_integer,
    check_sampled,
    choose,
    tensor_like,
)
from samplers.compiled import compiled
from samplers.host import undisturbed
from samplers.loop.beginning import check_starts, checked_states, encoded_start, times_of
from samplers.loop.captured import CapturedRun, may_pay
from samplers.loop.sample import Callback, run
from samplers.loop.trajectory import Recorder, Trajectory, check_path, join
from samplers.noise.brownian import NOISES, make_noise
from samplers.noise.seeded import sample_seeds
from samplers.padding import Sizes, check_sizes, cut, padded
from samplers.progress import Progress
from samplers.protocol import transform_of
from samplers.step import Sampler


@dataclass
class Samples:
    """``x`` (n, *event) in data units, on the CPU; ``nfe`` (n,), network calls counted for each sample; ``times``
    (steps + 1,), the grid; ``seconds``; ``seeds`` (n,); ``path``, where asked for; ``sizes`` (n,), how many entries are
    real along every axis behind the channels, or None: all. What is not real of x is 0. ``state`` (n, *inner), of a run
    from ``start_state`` or of a transform without ``log_det``, are the samples in model units, as they came out."""

    x: Tensor
    nfe: Tensor
    times: Tensor
    seconds: float
    seeds: list[int]
    path: Trajectory | None = None
    sizes: Tensor | None = None
    state: Tensor | None = None

    @property
    def mean_nfe(self) -> float:
        """Network calls per sample."""
        return self.nfe.mean().item()


@undisturbed
def generate(
    model,
    sampler: Sampler,
    n: int,
    event_shape: tuple[int, ...],
    *,
    steps: int | None = None,
    grid: str | Tensor | None = None,
    seed: int | Sequence[int] = 0,
    first: int = 0,
    noise: str = "independent",
    start: Tensor | None = None,
    start_time: float | None = None,
    start_state: Tensor | None = None,
    batch_size: int | None = None,
    path: int | None = None,
    sizes: Sizes | None = None,
    compile: bool = False,
    progress: bool = False,
    callback: Callback | None = None,
) -> Samples:
    """Draw n samples of shape ``event_shape`` in data units.

    ``steps`` and ``grid`` default to the sampler's own; ``grid`` is a key of GRIDS or a tensor of times; ``noise`` is
    one of NOISES. Pure noise is drawn at the grid's first time, where x must be no more than that
    (``grid.check_noise_end``). ``start`` (n, *event) in data units begins at data instead: it is perturbed to the time
    ``start_time``, from which the grid runs (image to image; Meng et al. 2022). ``start_state`` (n, *inner) is x at the
    grid's first time itself, in model units, taken as it is; such samples are also returned in model units, as
    ``state``, and so are those of a transform whose ``encode`` does not lead back to them. ``path=k`` keeps k of the
    states and denoised predictions on the way (see Trajectory), without further network calls. ``sizes``, one per
    sample, says how many entries are real along every axis behind the channels (samplers.padding): the rest is 0 in x,
    has no noise, and is 0 wherever the model is called, as in training. With another shape inside, they are those of
    the state.
    ``compile`` compiles the networks inside the model for this run (samplers.compiled), or on CUDA captures the whole
    run of a small network where there are chunks enough (samplers.loop.captured), without ``sizes``, callback and path;
    samples are the same to rounding.

    Samples are drawn in chunks of at most ``batch_size``, all of one shape: a smaller last one is filled up with copies
    of its last sample, so that a compiled network is compiled once. A chunk that does not fit the device's memory is
    halved, with a warning. Sample i has its own noise, from ``seed`` and i or from ``seed[i]``: it comes out the same
    whatever n and the chunks are, to the rounding of the network, which may depend on the batch. Conditions
    bound to the model, ``start`` and ``start_state`` have a row for each of the n samples; ``first`` is the number of
    the first of them where several processes draw a run's parts.
    The callback sees one chunk after the other. The model is put into eval mode and back. Raises ValueError and
    TypeError for bad arguments, FloatingPointError for samples that are not finite.
    """
    check_sampled(model, sampler)
    check_integer("n", n)
    check_integer("first", first, 0)
    check_integer("batch_size", 256 if batch_size is None else batch_size)
    check_event_shape(model, event_shape)
    choose("noise", noise, NOISES)
    process, transform, like = model.sde, transform_of(model), tensor_like(model)
    inner_shape = transform.inner_shape(event_shape)
    check_starts(start, start_time, start_state)
    times = times_of(process, sampler, steps, grid, start_time, start_state is not None)
    if path is not None:
        check_path(path, len(times) - 1, model)
    known = check_sizes(sizes, n, inner_shape)
    alike = inner_shape == tuple(event_shape)
    keeps = start_state is not None or transform.log_det(event_shape) is None
    if start is not None:
        start = encoded_start(start, (n, *event_shape), model, like, known if alike else None)
    if start_state is not None:
        start_state = checked_states(start_state, (n, *inner_shape), model, like)
    seeds = sample_seeds(seed, n, first)
    begin = time.perf_counter()
    bar = Progress(total=n * (len(times) - 1), disable=not progress, desc="sampling", unit="step")

    @torch.no_grad()
    def draw(index: list[int], count: int) -> tuple[Tensor, Tensor, Tensor | None, Trajectory | None]:
        """The samples with these numbers, of which those beyond ``count`` are there for the shape, in data units."""
        rows = model.rows(torch.tensor(index, device="cpu"))
        own = None if known is None else known[index]
        rows = padded(rows, own)
        recorder = None if path is None else Recorder(len(times) - 1, path, len(index))

        def carried(watch: Watch, captured: CapturedRun | None = None, **options: Any) -> Tensor:
            draws = make_noise(noise, [seeds[i] for i in index], process, None if own is None else own.tolist())
            if start_state is not None:
                x = start_state[index].to(like.device)
            elif start is None:
                x = process.sample_prior(like.new_empty((len(index), *inner_shape)), draws, times[0])
            else:
                x = process.noised(start[index].to(like.device), times[0], draws)
            if captured is not None:
                return captured(rows, cut(x, own), draws, watch)
            return run(rows, sampler, cut(x, own), times, draws, watch, **options)

        def report(step: int, s: Tensor, x: Tensor) -> bool:
            bar.update(count)
            stop = callback is not None and bool(callback(step, s, x[:count]))
            if recorder:
                recorder.arrive(step + 1, stop)
            return stop

        try:
            x = nfe = None
            if whole is not None:
                with Watch(rows, len(index)) as watch:
                    x = whole.tried(lambda: carried(watch, whole))
                nfe = whole.nfe
            if x is None or nfe is None:
                with Watch(rows, len(index), None if recorder is None else recorder.see) as watch:
                    x = carried(watch, callback=report, looking=False)
                nfe = watch.nfe
            if recorder is not None and hasattr(sampler, "last_call"):
                recorder.end(x)
            if not process.valid(x).all():
                # Once more, since its numbers are those of its seeds, to say at which step.
                with Watch(rows) as again:
                    carried(again)
                check_finite(x, [], times, len(times) - 1, process)
        except SampleError as error:
            raise error.renumbered([first + i for i in index]) from None
        kept = None if own is None or not alike else own[:count]
        state = x[:count].cpu() if keeps else None
        # A chunk as a whole, as a decoder that is a network has other rounding where there are fewer rows.
        x = cut(transform.quantize(transform.decode(x))[:count], kept).cpu()
        seen = None if recorder is None else recorder.trajectory(count, lambda x: cut(transform.decode(x), kept))
        return x, nfe[:count], state, seen

    # Chunks of even size leave little to fill up.
    chunk = -(-n // -(-n // (batch_size or 256)))
    done, parts = 0, []

    def as_a_whole() -> CapturedRun | None:
        """What captures the rest of the run, in chunks of their present size, where it may pay."""
        # Where items are padded, each chunk is elsewhere, which is sent to the device within its run.
        able = compile and callback is None and path is None and known is None
        chunks = -(-(n - done) // chunk)
        pays = able and may_pay(model, sampler, like.device, chunks, len(times) - 1)
        return CapturedRun(sampler, times) if pays else None

    whole = as_a_whole()
    networks: AbstractContextManager[None] = nullcontext()
    if compile and whole is None:
        networks = compiled(model, varying=getattr(sampler, "adaptive", False))
    with evaluating(model), bar, networks:
        while done < n:
            index = [min(i, n - 1) for i in range(done, done + chunk)]
            part = _unless_full(draw, index, min(chunk, n - done))
            if part is None:
                chunk = (chunk + 1) // 2
                # What was captured is of another size.
                whole = None if whole is None or whole.failed else as_a_whole()
            else:
                parts.append(part)
                done += len(part[0])
            bar.update(done * (len(times) - 1) - bar.n)
    items, nfe, states, paths = zip(*parts, strict=True)
    x, seen = torch.cat(items), None if path is None else join(paths)
    seconds = time.perf_counter() - begin
    state = torch.cat(states) if keeps else None
    return Samples(x, torch.cat(nfe), times, seconds, seeds, seen, known, state)


def _unless_full(draw, index: list[int], count: int):
    """draw(index, count), or None with a warning where the device's memory does not hold it; one sample must fit."""
    try:
        return draw(index, count)
    except torch.OutOfMemoryError:
        if len(index) == 1:
            raise
    # After the handler, as its traceback holds the tensors that were in the way.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = (len(index) + 1) // 2
    message = f"out of memory with {len(index)} samples at once: going on with {half}, as batch_size={half} would"
    warnings.warn(message, RuntimeWarning, stacklevel=3)
    return None
