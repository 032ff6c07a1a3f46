"""How many of a run's class-conditional samples an independent classifier takes for the class that was asked for.

    python benchmarks/recognised.py --workdir runs/mnist [--num_samples 1000] [--guidance_scale 1] [--sampler heun]

A small convolutional network is trained on the run's real training images and measured on the held-out ones first; it
has seen no sample and no noise. Classes are cycled. A grid of the first 100 samples, ten classes in columns, goes to
the run's samples/. The last line is JSON.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from commands.config import read_run_config, resolve
from commands.pictures import picture
from commands.run import Run, choose_device
from samplers import SAMPLERS, generate
from sde.data import Dataset
from sde.guidance import ClassifierFree


class Judge(nn.Sequential):
    """Logits of images (B, channels, height, width) in model units."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(7),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, classes),
        )  # fmt: skip

    def learn(self, data: Dataset, epochs: int = 2, size: int = 128) -> None:
        """Cross-entropy, Adam, a learning rate that falls to zero."""
        steps = epochs * (len(data) // size)
        optimizer = torch.optim.Adam(self.train().parameters(), lr=2e-3, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        order = torch.cat(
            [torch.randperm(len(data), generator=torch.Generator().manual_seed(e)) for e in range(epochs)]
        )
        for index in order[: steps * size].split(size):
            x, labels = data.batch(index)
            optimizer.zero_grad()
            F.cross_entropy(self(data.transform.encode(x)), labels).backward()
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def accuracy(self, data: Dataset, x: Tensor, labels: Tensor) -> float:
        """Share of items x, in data units, that it takes for ``labels``."""
        found = torch.cat([self.eval()(data.transform.encode(part)).argmax(1) for part in x.float().split(500)])
        return (found == labels).float().mean().item()


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
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = Judge(training.event_shape[0], training.num_classes)
        judge.learn(training)
    real = judge.accuracy(held_out, *held_out.batch(torch.arange(len(held_out))))
    print(f"the classifier is right about {real:.2%} of {len(held_out):,} held-out images")
    labels = torch.arange(options.num_samples) % training.num_classes
    samples = generate(
        ClassifierFree(model, labels, options.guidance_scale), SAMPLERS[options.sampler](), options.num_samples,
        model.event_shape, steps=options.steps, batch_size=100, progress=True,
    )  # fmt: skip
    recognised = judge.accuracy(held_out, samples.x, labels)
    path = run.folder / "samples" / "recognised.png"
    picture(samples.x[:100], path, levels=training.transform.levels)
    print(f"and takes {recognised:.2%} of {options.num_samples} samples for the class that was asked for; see {path}")
    print(json.dumps({"real": real, "recognised": recognised, "nfe": samples.nfe, "seconds": samples.seconds}))


if __name__ == "__main__":
    main()
