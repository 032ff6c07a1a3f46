"""Control: how well the edges of samples are those that were asked for.

    python benchmarks/control.py --workdir runs/digits_edges [--num_samples 360] [--steps 25] [--seed 0]
        [--guidance_scale 1] [--control_scale 1] [--picture edges.png]

Held-out items give their edges, or masks, and their classes. The same control is computed of the samples, and held
against what was asked for by its F1 score, entry by entry without tolerance, averaged over samples. Beside it: the same
model without its control, from the same noise; the edges of other held-out items of the same class, and of any, in the
place of the samples'. The last line is JSON.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from samplers import SAMPLERS, generate
from score_sde.config.config import read_run_config, resolve
from score_sde.metrics.agreement import f1_scores
from score_sde.plots.strip import strip
from score_sde.run.device import choose_device
from score_sde.run.folder import Run
from score_sde.run.guidance import GuidanceOptions
from score_sde.run.guides import Guides
from sde.condition.tree import restrict_to
from sde.data.controls import BINARY, CONTROLS
from sde.data.statistics import spread

SHOWN = 10
"""Samples in the picture."""


def others(labels: Tensor | None, count: int) -> Tensor:
    """The position of another item for each of ``count``, the next one of its class where there are labels."""
    found = torch.arange(count).roll(-1)
    if labels is None:
        return found
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        found[own] = own.roll(-1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--num_samples", type=int, default=360)
    parser.add_argument("--sampler", default="dpmpp")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance_scale", type=float, default=1.0)
    parser.add_argument("--control_scale", type=float, default=1.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    run = Run(options.workdir, resolve(read_run_config(options.workdir), []), choose_device(options.device))
    name, factor = run.config.data.control, run.config.data.superres_factor
    if name not in BINARY:
        raise SystemExit(
            f"--workdir={options.workdir}: its control is {name or 'none'}, and F1 asks {' or '.join(BINARY)}"
        )
    _, held_out = run.data()
    index = spread(len(held_out), options.num_samples)
    x, cond = held_out.batch(index)
    computed = CONTROLS[name](held_out.items, factor)
    asked, labels = computed(x), None if held_out.labels is None else held_out.labels[index]
    drawn = {}
    for title, scale in (("controlled", options.control_scale), ("uncontrolled", 0.0)):
        guidance = GuidanceOptions(guidance_scale=options.guidance_scale, control_scale=str(scale))
        guides = Guides(run, run.model(), guidance)
        model = guides(restrict_to(cond, guides.denoiser))
        samples = generate(model, SAMPLERS[options.sampler](), len(x), held_out.event_shape, steps=options.steps,
                           seed=options.seed, batch_size=128)  # fmt: skip
        drawn[title] = samples.x
    scores = {title: f1_scores(computed(found.to(x.dtype)), asked) for title, found in drawn.items()}
    if labels is not None:
        scores["another item of the class"] = f1_scores(asked[others(labels, len(x))], asked)
    scores["another item"] = f1_scores(asked[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))], asked)
    print(f"F1 of the {name} of {len(x)} samples by {options.sampler}, {options.steps} steps\n")
    print("| | F1 | standard error |\n|---|---|---|")
    for title, found in scores.items():
        print(f"| {title} | {found.mean():.3f} | {found.std() / math.sqrt(len(found)):.3f} |")
    if options.picture:
        levels = held_out.transform.num_levels
        high = levels - 1 if levels else x.max()
        rows = [(asked * high).expand(-1, x.shape[1], *asked.shape[2:]), *drawn.values(), x]
        names = [name, *drawn, "item"]
        shown = torch.stack([row[:SHOWN].float() for row in rows])
        strip(shown, names, options.picture, kind=run.kind, levels=levels)
        print(f"\nfrom above {', '.join(names)}: {options.picture}")
    values = {title: round(found.mean().item(), 4) for title, found in scores.items()}
    print(json.dumps({"control": name, "num_samples": len(x), "f1": values}))


if __name__ == "__main__":
    main()
