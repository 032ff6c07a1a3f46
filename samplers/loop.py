"""The sampling loop, and ``generate``, which users call."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, pairwise

import torch
from torch import Tensor
from tqdm import tqdm

from samplers.calls import CallCounter, evaluating
from samplers.grid import check_times, make_grid
from samplers.noise import SeededNoise, sample_seeds
from samplers.step import Noise, Sampler

Callback = Callable[[int, Tensor, Tensor], None]


@torch.no_grad()
def sample(
    model,
    sampler: Sampler,
    x: Tensor,
    times: Tensor,
    noise: Noise = torch.randn_like,
    *,
    denoise: bool = True,
    callback: Callback | None = None,
) -> Tensor:
    """Carry x (B, *event), drawn at times[0], to times[-1] by the steps of a sampler; in model units.

    ``times`` (steps + 1,) are strictly decreasing; with ``denoise`` the posterior mean at the last one is returned, one
    more network call. ``callback(step, s, x)`` sees x after each step. Raises FloatingPointError that names step, noise
    level and samples where x became non-finite.
    """
    times = check_times(times, model.sde)
    carry = None
    sums = []
    for step, (t, s) in enumerate(pairwise(times)):
        x, carry = sampler.step(model, x, t, s, noise, carry)
        # Read only after the loop, and only on failure: reading here would make the CPU wait for the device.
        sums.append(x.sum())
        if callback is not None:
            callback(step, s, x)
    if denoise:
        x = model(x, times[-1])
        sums.append(x.sum())
    _check_finite(x, sums, times, model.sde)
    return x


def _check_finite(x: Tensor, sums: list[Tensor], times: Tensor, sde) -> None:
    finite = x.isfinite().flatten(1).all(1)
    if finite.all():
        return
    step = int((~torch.stack(sums).isfinite()).nonzero()[0])
    last = len(times) - 1
    where = f"step {step + 1} of {last}" if step < last else "the last denoising call"
    t = times[min(step, last)]
    bad = (~finite).nonzero().squeeze(1).tolist()
    names = f"{', '.join(map(str, bad[:8]))}{' ...' if len(bad) > 8 else ''}"
    raise FloatingPointError(f"samples {names} became non-finite in {where} (t = {t:.4g}, sigma = {sde.sigma(t):.4g})")


@dataclass
class Samples:
    """``x`` (n, *event) in data units, on the CPU; ``nfe``, counted calls a sample; ``seconds``; ``seeds`` (n,)."""

    x: Tensor
    nfe: float
    seconds: float
    seeds: list[int]


def generate(
    model,
    sampler: Sampler,
    n: int,
    event_shape: tuple[int, ...],
    *,
    steps: int | None = None,
    grid: str | Tensor | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
    callback: Callback | None = None,
) -> Samples:
    """Draw n samples of shape ``event_shape`` in data units.

    ``steps`` and ``grid`` default to the sampler's own; ``grid`` is a key of GRIDS or a tensor of times. Samples are
    drawn in chunks of ``batch_size``; sample i has its own noise, so that it comes out the same whatever n and the
    chunks are (to the rounding of the network, which may depend on the batch). The model is put into eval mode and
    back. Raises ValueError for arguments out of range, FloatingPointError for samples that are not finite.
    """
    if n < 1:
        raise ValueError(f"n = {n}: needs at least 1 sample")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size = {batch_size}: needs at least 1")
    counter = CallCounter(model)
    times = (
        check_times(grid, model.sde)
        if isinstance(grid, Tensor)
        else make_grid(model.sde, grid or sampler.grid, sampler.steps if steps is None else steps)
    )
    seeds = sample_seeds(seed, n)
    like = next((p for p in chain(model.parameters(), model.buffers()) if p.is_floating_point()), torch.empty(0))
    chunk = min(n, batch_size or 256)
    start = time.perf_counter()
    chunks = []
    bar = tqdm(total=n * (len(times) - 1), disable=not progress, desc="sampling", unit="step")
    with evaluating(model), counter, bar:
        for first in range(0, n, chunk):
            rows = slice(first, min(first + chunk, n))
            noise = SeededNoise(seeds[rows])
            x = like.new_empty((len(noise.generators), *event_shape))
            x = noise(x) * model.sde.sigma(times[0])

            def report(step: int, s: Tensor, state: Tensor) -> None:
                bar.update(len(state))
                if callback is not None:
                    callback(step, s, state)

            try:
                x = sample(model.rows(rows), sampler, x, times, noise, callback=report)
            except FloatingPointError as error:
                raise FloatingPointError(f"{error}, in the batch that begins with sample {first}") from None
            chunks.append(x.cpu())
    x = torch.cat(chunks)
    transform = getattr(model, "transform", None)
    if transform is not None:
        x = transform.quantise(transform.decode(x))
    return Samples(x, counter.per_sample(n), time.perf_counter() - start, seeds)
