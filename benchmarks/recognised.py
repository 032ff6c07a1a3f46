"""How many of a run's class-conditional samples an independent classifier takes for the class that was asked for.

    python benchmarks/recognised.py --workdir runs/mnist [--num_samples 1000] [--guidance_scale 1] [--sampler heun]

The classifier is trained on the run's real training items and measured on the held-out ones first; it has seen no
sample and no noise. Classes are cycled. A picture of the first 100 samples, ten classes in columns, goes to the run's
samples/. The last line is JSON. `--mode guidance_sweep` does the same at several scales, and measures diversity.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from samplers import SAMPLERS, generate
from score_sde.config.config import read_run_config, resolve
from score_sde.evaluation.judge import evaluation_classifier
from score_sde.plots.pictures import picture
from score_sde.run.folder import Run, choose_device
from sde.guidance.classifier_free import ClassifierFree


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--num_samples", type=int, default=1000)
    parser.add_argument("--guidance_scale", type=float, default=1.0)
    parser.add_argument("--sampler", default="heun", choices=[*SAMPLERS])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    run = Run(Path(options.workdir), resolve(read_run_config(Path(options.workdir)), []), choose_device(options.device))
    (training, held_out), model = run.data(), run.model()
    judge = evaluation_classifier(run, training)
    x, cond = held_out.batch(torch.arange(len(held_out)))
    real = (judge.classes(x) == cond["labels"]).double().mean().item()
    print(f"the classifier is right about {real:.2%} of {len(held_out):,} held-out items")
    labels = torch.arange(options.num_samples) % training.num_classes
    samples = generate(
        ClassifierFree(model, labels, options.guidance_scale), SAMPLERS[options.sampler](), options.num_samples,
        model.event_shape, steps=options.steps, batch_size=100, progress=True,
    )  # fmt: skip
    recognised = (judge.classes(samples.x) == labels).double().mean().item()
    path = run.folder / "samples" / "recognised.png"
    picture(samples.x[:100], path, levels=training.transform.num_levels)
    print(f"and takes {recognised:.2%} of {options.num_samples} samples for the class that was asked for; see {path}")
    print(json.dumps({"real": real, "recognised": recognised, "nfe": samples.mean_nfe, "seconds": samples.seconds}))


if __name__ == "__main__":
    main()
