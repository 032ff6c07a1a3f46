"""--mode edit: items, noised to a time and brought back (SDEdit; Meng et al. 2022)."""

import math
from pathlib import Path

import numpy as np
import torch

from samplers import NOISES
from score_sde.plots.panels import panels
from score_sde.run.folder import Run
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.inputs import open_inputs, read_floats
from score_sde.run.items import bind, open_split, root_mean_square, write_arrays
from score_sde.run.outputs import check_room_of, stem
from score_sde.run.sampling import Sampling, draw
from sde import SDE
from sde.data.sizes import cut


def edit(
    run: Run,
    *,
    start_time: str = "0.3,0.5,0.7",
    split: str = "test",
    items: str | None = None,
    num_samples: int | None = None,
    input: str | None = None,
    labels: str | None = None,
    prompt: str | None = None,
    guidance: GuidanceOptions = UNGUIDED,
    steps: int | None = None,
    grid: str | None = None,
    noise: str = NOISES[0],
    seed: int = 0,
    batch_size: int = 256,
    out: str | None = None,
) -> dict:
    """Noise items to a time and sample from there, towards labels; write ``<out>.png`` and ``<out>.npz``."""
    sampling = Sampling(run, steps, grid, noise, seed, batch_size)
    if sampling.sampler is None:
        raise ValueError("--sampler=auto: a plan begins at noise, and here sampling begins at data; name a sampler")
    data, _, denoiser = open_split(run, split, input)
    times = read_times(start_time, denoiser.sde)
    if isinstance(sampling.times, torch.Tensor) and len(times) > 1:
        raise ValueError(f"--grid={grid} begins at one time, --start_time={start_time} has {len(times)}: give one")
    inputs = open_inputs(data, split, items, num_samples, input, run.kind)
    count = len(inputs.x)
    conditions, bound = bind(run, denoiser, labels, inputs.cond, count, guidance, prompt)
    check_room_of(run, out, count * len(times), data.event_shape)
    model = bound(1)
    parts = [
        draw(
            run, model, sampling.sampler, count, data.event_shape, start=inputs.x, start_time=time, steps=steps,
            grid=sampling.times, sizes=inputs.sizes, **sampling.options,
        )
        for time in times
    ]  # fmt: skip
    drawn = [samples for samples in parts if samples is not None]
    if not drawn:
        return {}
    x, nfe = (torch.stack([getattr(samples, name) for samples in drawn], 1) for name in ("x", "nfe"))
    changes = [root_mean_square(inputs.x - samples.x, inputs.sizes).item() for samples in drawn]
    path = stem(run, out, "edit")
    picture, numbers = Path(f"{path}.png"), Path(f"{path}.npz")
    ends = {f"t = {time:g}": samples.x for time, samples in zip(times, drawn, strict=True)}
    columns = {name: cut(end, inputs.sizes, math.nan)[:, None] for name, end in ({"input": inputs.x} | ends).items()}
    shown = panels(columns, picture, kind=run.kind, levels=data.transform.num_levels)
    write_arrays(
        numbers,
        {"input": inputs.x, "x": x, "sizes": inputs.sizes, "start_times": np.array(times), "nfe": nfe,
         "index": inputs.index, "labels": inputs.labels, "conditions": conditions, "seeds": np.array(drawn[0].seeds)},
        run.settings,
    )  # fmt: skip
    means, seconds = [samples.mean_nfe for samples in drawn], sum(samples.seconds for samples in drawn)
    moved = ", ".join(f"{change:.3g} at t = {time:g}" for time, change in zip(times, changes, strict=True))
    print(
        f"{count} item{'s' * (count > 1)} ({inputs.source}) by {sampling.name}, {sum(means):g} network calls each, "
        f"{seconds:.1f} s; changed by {moved} (rms, data units): "
        f"{picture if shown else 'no picture for this shape'}, {numbers}"
    )
    return {
        "mode": "edit",
        "sampler": sampling.name,
        "num_items": count,
        "start_times": times,
        "changes": changes,
        "nfe": means,
        "seconds": round(seconds, 2),
        "seed": seed,
        "picture": str(picture) if shown else None,
        "numbers": str(numbers),
    }


def read_times(text: str, sde: SDE) -> list[float]:
    """``--start_time``: times with commas between them, in (t_min, t_max], each once."""
    times = [*dict.fromkeys(read_floats("--start_time", text, "times, as in 0.3,0.5,0.7"))]
    for time in times:
        if not sde.t_min < time <= sde.t_max:
            raise ValueError(
                f"--start_time={text}: {time:g} is out of range, allowed are times above t_min = {sde.t_min:g}, up to "
                f"t_max = {sde.t_max:g}"
            )
    return times
