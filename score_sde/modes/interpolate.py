"""--mode interpolate: on the arc between two latents, those of two items or of two seeds, decoded to a strip."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplers import SeededNoise, decode, encode, slerp
from score_sde.plots.pictures import strips
from score_sde.run.folder import Run
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.inputs import read_numbers
from score_sde.run.items import batched, bind, joined, open_split, relative_error, write_arrays
from score_sde.run.outputs import stem
from score_sde.run.sizes import drawn_sizes
from sde.condition.tree import map_condition
from sde.data import Dataset
from sde.data.sizes import cut, law_of
from sde.data.statistics import spread

DEFAULT_ITEMS = 6
"""The first items of the split are taken in pairs unless --items or --seed_pairs says otherwise."""

LARGEST_SEED = 2**63 - 1

BACKGROUND_POINTS = 2000
"""Data points behind the strips of points in the plane."""


def interpolate(
    run: Run,
    *,
    split: str = "test",
    items: str | None = None,
    seed_pairs: str | None = None,
    frames: int = 9,
    labels: str | None = None,
    prompt: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    batch_size: int = 256,
    rtol: float = 1e-4,
    atol: float = 1e-4,
    out: str | None = None,
) -> dict:
    """Interpolate between pairs of items or of seeds; write ``<out>.png``, one row per pair, and ``<out>.npz``."""
    if frames < 2:
        raise ValueError(f"--frames={frames}: a strip needs at least 2, its two ends")
    if items and seed_pairs:
        raise ValueError("--items and --seed_pairs were both given: interpolate between items or between seeds")
    data, _, denoiser = open_split(run, split)
    kind = "seeds" if seed_pairs else "items"
    text = seed_pairs or items or ",".join(map(str, range(min(DEFAULT_ITEMS, len(data)) // 2 * 2)))
    ends = read_pairs(kind, text, LARGEST_SEED + 1 if seed_pairs else len(data))
    x, targets = (None, None) if seed_pairs else data.batch(ends.flatten())
    sizes = data.sizes_of(ends.flatten()) if x is not None else None
    if data.sizes is not None and x is None:
        sizes = drawn_sizes(run.sizes or law_of(data.sizes), ends.flatten().tolist())
    # One condition per strip, that of its first item, so that both ends are on the flow that the strip is decoded by.
    first = map_condition(lambda c: c[::2], targets)
    conditions, bound = bind(run, denoiser, labels, first, len(ends), guidance, prompt)
    tolerances: dict[str, Any] = {"rtol": rtol, "atol": atol}
    begin = time.perf_counter()
    if x is None:
        blank = torch.empty((ends.numel(), *data.inner_shape))
        own = None if sizes is None else sizes.tolist()
        latent = SeededNoise(ends.flatten().tolist(), own)(blank) * denoiser.sde.prior_std()
    else:
        there = batched(
            lambda model, x, **own: encode(model, x, **tolerances, **own),
            bound(2),
            x,
            run,
            batch_size,
            "encoding",
            sizes,
        )
        latent = joined(there, "latent")
    weights = torch.linspace(0, 1, frames, dtype=torch.float64)
    path, between = slerp(latent[::2], latent[1::2], weights), None
    if sizes is not None:
        between = sizes_between(sizes.view(-1, 2), weights).flatten()
        path = cut(path.flatten(0, 1), between).view_as(path)
    # Seeds give the samples of --sampler ode, which end with a denoising call; items come back as they were.
    decoded = batched(
        lambda model, z, **own: decode(model, z, denoise=bool(seed_pairs), **tolerances, **own),
        bound(frames),
        path.flatten(0, 1),
        run,
        batch_size,
        "decoding",
        between,
    )
    if not run.world.is_main:
        return {}
    seconds = time.perf_counter() - begin
    strip = joined(decoded, "x").view(*path.shape[:2], *data.event_shape)
    nfe = joined(decoded, "nfe").view(path.shape[:2])
    target = stem(run, out, "interpolate")
    picture, numbers = Path(f"{target}.png"), Path(f"{target}.npz")
    behind = background(data) if run.kind.planar(data.event_shape) else None
    drawn = strips(strip, picture, kind=run.kind, levels=data.transform.num_levels, background=behind, sizes=between)
    frame_sizes = None if between is None else between.view(path.shape[:2])
    write_arrays(
        numbers,
        {
            "x": strip,
            "sizes": frame_sizes,
            "latent": path,
            "weights": weights,
            "nfe": nfe,
            kind: ends,
            "conditions": conditions,
        },
        run.settings,
    )
    result = {
        "mode": "interpolate",
        kind: ends.tolist(),
        "frames": frames,
        "conditions": None if conditions is None else conditions.tolist(),
        "nfe": round(nfe.mean().item(), 1),
        "seconds": round(seconds, 2),
    }
    ends_sentence = ""
    if x is not None:
        values = joined(decoded, "values").view(strip.shape)[:, [0, -1]].flatten(0, 1)
        result["end_error"] = relative_error(values, data.transform.dequantize(x, 0.5), data, sizes)
        ends_sentence = f", ends within {result['end_error']:.1e} of the data's standard deviation (rms)"
    print(
        f"{len(ends)} strip{'s' * (len(ends) > 1)} of {frames} frames between {kind} {describe(ends)}, "
        f"{result['nfe']:g} network calls per frame, {seconds:.1f} s{ends_sentence}: "
        f"{picture if drawn else 'no picture for this shape'}, {numbers}"
    )
    return result | {"picture": str(picture) if drawn else None, "numbers": str(numbers)}


def read_pairs(kind: str, text: str, limit: int) -> Tensor:
    """``--items`` or ``--seed_pairs``, as in 3,17 or 3,17,5,8: pairs (n, 2) of numbers below the limit."""
    flag = "--seed_pairs" if kind == "seeds" else "--items"
    numbers = read_numbers(flag, text, limit, "pairs of numbers, as in 3,17 or 3,17,5,8")
    if len(numbers) % 2:
        what = f"one of the {kind} only" if len(numbers) == 1 else f"an odd number of {kind}, {len(numbers)}"
        raise ValueError(f"{flag}={text}: {what}; needs pairs, as in 3,17 or 3,17,5,8 for two strips")
    return torch.tensor(numbers).view(-1, 2)


def sizes_between(sizes: Tensor, weights: Tensor) -> Tensor:
    """The sizes (n, frames) of the frames between two items of sizes (n, 2), at weights (frames,) from 0 to 1."""
    return torch.lerp(sizes[:, :1].double(), sizes[:, 1:].double(), weights).round().long()


def describe(ends: Tensor) -> str:
    """The pairs in words, the first few of many."""
    pairs = [f"{a} and {b}" for a, b in ends[:4].tolist()]
    return ", ".join(pairs) + ", ..." * (len(ends) > 4)


def background(data: Dataset) -> Tensor:
    """Points of the data."""
    return data.batch(spread(len(data), BACKGROUND_POINTS))[0]
