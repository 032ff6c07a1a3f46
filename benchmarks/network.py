"""Time of a forward pass and of a training step of a config's network, on random data of its shape.

    python benchmarks/network.py --config cifar10 --batch_size 8 [--repeats 5] [--config.training.precision=bfloat16]

float32 and bfloat16 are interleaved in one run; medians. The last line is JSON, for the config's own precision.
"""

import argparse
import json
import statistics
import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import random_model, seconds
from commands.run import autocast, choose_device
from sde.loss import denoising_loss
from sde.training import Trainer, TrainingOptions


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="digits", help="a config file, or the name of one in configs/")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    options, overrides = parser.parse_known_args()
    try:
        device = choose_device(options.device)
        config, data, model = random_model(options.config, overrides, device, options.batch_size)
    except ValueError as error:
        parser.error(str(error))
    loss = partial(denoising_loss, weighting=config.training.weighting, times=config.training.times)
    trainer = Trainer(model, data, loss, TrainingOptions(batch_size=options.batch_size, lr=1e-6))
    x, labels = (part.to(device) for part in data.batch(torch.arange(options.batch_size)))
    t = torch.tensor(0.5, dtype=torch.float64)

    @torch.no_grad()
    def forward() -> None:
        model.eval()(x, t, labels if model.num_classes else None)

    precisions = ("float32", "bfloat16")
    times = {(precision, kind): [] for precision in precisions for kind in ("forward", "train")}
    for repeat in range(options.repeats + 1):
        for precision in precisions:
            model.autocast = torch.bfloat16 if precision == "bfloat16" else None
            for kind, function in (("forward", forward), ("train", trainer.optimise)):
                taken = seconds(function, device)
                if repeat:  # The first one warms up.
                    times[precision, kind].append(taken)
    milliseconds = {key: 1000 * statistics.median(values) / options.batch_size for key, values in times.items()}
    for precision in precisions:
        forward_ms, train_ms = milliseconds[precision, "forward"], milliseconds[precision, "train"]
        print(f"{precision:9s} forward {forward_ms:8.3f} ms/image, training step {train_ms:8.3f} ms/image")
    own = "float32" if autocast(config, device) is None else "bfloat16"
    print(
        json.dumps(
            {
                "config": options.config,
                "batch_size": options.batch_size,
                "device": str(device),
                "threads": torch.get_num_threads(),
                "precision": own,
                "parameters": sum(p.numel() for p in model.parameters()),
                "forward_ms_per_image": round(milliseconds[own, "forward"], 4),
                "train_ms_per_image": round(milliseconds[own, "train"], 4),
                "images_per_second": round(1000 / milliseconds[own, "train"], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
