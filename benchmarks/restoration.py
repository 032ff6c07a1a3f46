"""Restoration: a run's held-out items by each method of --mode restore, and the share that a classifier recognizes.

    python benchmarks/restoration.py --workdir runs/digits [--task inpaint --mask upper] [--sigma_y 0]
        [--methods mmps,pigdm,dps,replacement] [--num_items 50] [--draws 4] [--steps 30] [--repaint_steps 4]

A support vector classifier (scikit-learn), trained on the run's real training items, is asked for the class of every
sample; it is measured on all held-out items first. Labels are not given to the model. The table is Markdown, its
columns as in docs/guidance.md; the last line is JSON.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from samplers import SAMPLERS, SCORE_SAMPLERS, generate
from samplers.repaint import RePaint
from score_sde.config.config import read_run_config, resolve
from score_sde.restoration.methods import METHODS, STEPS, posterior
from score_sde.restoration.scores import decibels, peak_of
from score_sde.restoration.tasks import TASKS, make_operator, measure
from score_sde.run.device import choose_device
from score_sde.run.folder import Run
from sde.data import Dataset
from sde.data.statistics import spread

MAX_TRAINING_ITEMS = 10_000
"""Training items of the classifier."""


class Judge:
    """The classifier, on the entries of items in data units, standardized by one number for all."""

    def __init__(self, data: Dataset) -> None:
        index = spread(len(data), MAX_TRAINING_ITEMS)
        x, _ = data.batch(index)
        self.scale = x.std().item()
        self.machine = SVC().fit(self._rows(x), data.labels[index].numpy())

    def _rows(self, x: Tensor) -> np.ndarray:
        return (x.flatten(1) / self.scale).numpy()

    def recognized(self, x: Tensor, labels: Tensor) -> float:
        """Share of items x (n, *event) that it takes for ``labels`` (n,)."""
        return float((self.machine.predict(self._rows(x)) == labels.numpy()).mean())


def psnr(difference: Tensor, data: Dataset) -> float:
    """Peak signal-to-noise ratio over all entries in dB, as in the table of docs/guidance.md."""
    return decibels(peak_of(data), difference.double().square().mean().item())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--task", default="inpaint", choices=[*TASKS])
    for name, kind in (("mask", str), ("factor", int), ("blur_std", float), ("num_measurements", int)):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--sigma_y", type=float, default=0.0)
    parser.add_argument("--methods", default="")
    parser.add_argument("--num_items", type=int, default=50)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--sampler", default="ancestral", choices=[*SCORE_SAMPLERS])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--repaint_steps", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    run = Run(Path(options.workdir), resolve(read_run_config(Path(options.workdir)), []), choose_device(options.device))
    (training, held_out), model, shape = run.data(), run.model(), run.data()[0].event_shape
    judge = Judge(training)
    everything, _ = held_out.batch(torch.arange(len(held_out)))
    real = judge.recognized(everything, held_out.labels)
    index = spread(len(held_out), options.num_items)
    x, labels = everything[index], held_out.labels[index].repeat_interleave(options.draws)
    given = {name: getattr(options, name) for name, _ in TASKS.values() if name}
    operator, name = make_operator(options.task, shape, given, options.seed, run.kind)
    y = measure(operator, x, options.sigma_y, options.seed)
    each = y.repeat_interleave(options.draws, 0).to(run.device)
    exact = options.task == "inpaint" and options.sigma_y == 0
    methods = options.methods.split(",") if options.methods else [m for m in METHODS if exact or m != "replacement"]
    print(f"{name}, {options.num_items} items, {options.draws} samples each by {options.sampler}; the classifier knows "
          f"{real:.1%} of {len(held_out)} held-out items\n")  # fmt: skip
    print("| method | recognized | PSNR | of the mean | measurement error | spread | all different | calls | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    found = {}
    for method in methods:
        sampler = RePaint(SAMPLERS[options.sampler](), options.repaint_steps)
        guided = posterior(method, model, operator.to(run.device), each, options.sigma_y)
        samples = generate(guided, sampler, len(each), shape, steps=options.steps, seed=options.seed, batch_size=100)
        restored = operator.cpu().restore(samples.x, each.cpu()) if exact else samples.x
        grouped = restored.unflatten(0, (-1, options.draws))
        pairs = [(grouped[:, i] != grouped[:, j]).flatten(1).any(1) for i in range(options.draws) for j in range(i)]
        found[method] = {
            "recognized": judge.recognized(restored, labels),
            "psnr": psnr(grouped - x[:, None], held_out),
            "psnr_mean": psnr(grouped.mean(1) - x, held_out),
            "measurement_error": (operator(samples.x) - each.cpu()).double().square().mean().sqrt().item(),
            "spread": grouped.std(1).square().mean().sqrt().item(),
            "different": torch.stack(pairs).all(0).double().mean().item(),
            "nfe": samples.mean_nfe,
            "seconds": samples.seconds,
        }
        row = found[method]
        print(f"| {method} | {row['recognized']:.1%} | {row['psnr']:.2f} | {row['psnr_mean']:.2f} | "
              f"{row['measurement_error']:.3g} | {row['spread']:.3g} | {row['different']:.0%} | {row['nfe']:g} | "
              f"{row['seconds']:.1f} |", flush=True)  # fmt: skip
    print(json.dumps({"task": name, "real": real, "options": vars(options), "methods": found}))


if __name__ == "__main__":
    main()
