"""--mode sample: pictures and numbers from a run folder."""

from pathlib import Path

import numpy as np
import torch

from samplers import NOISES
from score_sde.plots.strip import strip
from score_sde.run.conditions import read_condition, show
from score_sde.run.folder import Run
from score_sde.run.guides import UNGUIDED, GuidanceOptions, Guides
from score_sde.run.items import write_arrays
from score_sde.run.outputs import stem
from score_sde.run.sampling import Sampling, low_resolution
from score_sde.run.scales import varied
from sde.condition.tree import as_tree


def sample(
    run: Run,
    *,
    steps: int | None = None,
    grid: str | None = None,
    noise: str = NOISES[0],
    num_samples: int = 64,
    seed: int = 0,
    labels: str | None = None,
    condition: str | None = None,
    cascade: str | None = None,
    guidances: tuple[GuidanceOptions, ...] = (UNGUIDED,),
    batch_size: int = 256,
    out: str | None = None,
) -> dict:
    """Draw samples, at each of several scales from the same noise; write ``<out>.png`` and ``<out>.npz``."""
    sampling = Sampling(run, steps, grid, noise, seed, batch_size)
    guides = Guides(run, run.model(), *guidances)
    if cascade:
        if condition:
            raise ValueError(f"--condition={condition} and --cascade={cascade} both give the images: choose one")
        cond = low_resolution(sampling, cascade, guides, labels, num_samples)
    else:
        cond = read_condition(run, guides, labels, condition, num_samples)
    # All of them before the first is drawn, for what they refuse.
    models = [guides(cond, options) for options in guidances]
    drawn = [sampling(guides, options, cond, num_samples) for options in guidances]
    if not run.world.is_main:
        return {}
    # An adaptive solver makes steps of its own between the two ends.
    count = sampling.steps or len(drawn[0].times) - 1
    head = sampling.name if count == 1 and not sampling.steps else f"{sampling.name}-{count}"
    path = stem(run, out, head, seed, told=("sampler", "steps"))
    picture_path, numbers_path = Path(f"{path}.png"), Path(f"{path}.npz")
    x, calls = (torch.stack([getattr(samples, name) for samples in drawn]) for name in ("x", "calls"))
    levels = models[0].transform.levels
    arrays = {"x": x, "seeds": np.array(drawn[0].seeds), "calls": calls, **as_tree(cond)}
    nfe, seconds = [samples.nfe for samples in drawn], [round(samples.seconds, 2) for samples in drawn]
    result = {"mode": "sample", "sampler": sampling.name, "num_samples": num_samples, "nfe": nfe, "seconds": seconds}
    counted = f"{num_samples} sample{'s' * (num_samples > 1)}"
    if len(guidances) == 1:
        arrays |= {"x": x[0], "calls": calls[0]}
        result |= {"nfe": nfe[0], "seconds": seconds[0]}
        shown = show(x[0], cond, picture_path, kind=run.kind, levels=levels)
        what = counted
    else:
        flag, scales = varied(guidances)
        arrays |= {"scales": np.array(scales)}
        result |= {"flag": flag, "scales": scales}
        names = [f"{flag.replace('_', ' ')} {scale:g}" for scale in scales]
        shown = strip(x, names, picture_path, kind=run.kind, levels=levels, labels=as_tree(cond).get("labels"))
        what = f"{counted} at each {flag.replace('_', ' ')} of {', '.join(f'{s:g}' for s in scales)}"
    write_arrays(numbers_path, arrays)
    run.kind.write(list(x.flatten(0, 1)), path, run.about)
    least, most = calls.min().item(), calls.max().item()
    spread = f" ({least:g} to {most:g})" if len(drawn) == 1 and least < most else ""
    print(
        f"{what} by {sampling.name}, {', '.join(f'{mean:g}' for mean in nfe)} network calls each{spread}, "
        f"{sum(seconds):.1f} s: {picture_path if shown else 'no picture for this shape'}, {numbers_path}"
    )
    return result | {"seed": seed, "picture": str(picture_path) if shown else None, "numbers": str(numbers_path)}
