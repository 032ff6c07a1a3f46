"""Items per second of the readers of data, against those of a config's network in training.

    python benchmarks/input.py [--config images] [--items 2000] [--batch_size 128] [--workers 0,1,2,4] [--device auto]

Random pictures of the config's shape are read as a tensor in memory, as a .npy on disk, and as PNG files that are
decoded; with random numbers, as training asks for them. The last line is JSON.
"""

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import random_model, seconds
from score_sde.run.device import choose_device
from sde.data import Dataset
from sde.data.array_files import ArrayFile
from sde.data.folders import Folder
from sde.data.images import ImageFiles
from sde.data.transform import Transform
from sde.device import wait_for
from sde.distributed.world import World
from sde.training.batches import Batches
from sde.training.loss import denoising_loss
from sde.training.options import TrainingOptions
from sde.training.trainer import Trainer

SHAPE = "--config.data.event_shape=(3,32,32)"

SECONDS = 3.0
"""Of reading, for each number of threads."""


def readers(folder: Path, pixels: np.ndarray) -> dict[str, Dataset]:
    """The same pictures, uint8 (n, C, H, W), each time read in another way."""
    np.save(folder / "items.npy", pixels)
    (folder / "png").mkdir()
    for number, picture in enumerate(pixels):
        image = Image.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0))
        image.save(folder / "png" / f"{number:06d}.png")
    pictures, transform = Folder(folder / "png"), Transform.of_levels(256)
    held = {
        "in memory": torch.from_numpy(pixels),
        "a .npy on disk": ArrayFile(np.load(folder / "items.npy", mmap_mode="r")),
        "PNG files": ImageFiles(pictures, pictures.names, "L" if len(pixels[0]) == 1 else "RGB", pixels.shape[:1:-1]),
    }
    return {name: Dataset(items, None, None, transform) for name, items in held.items()}


def rate(
    data: Dataset, model, options: TrainingOptions, device: torch.device, workers: int, lasting: float = SECONDS
) -> float:
    """Items per second that come to the device, as fast as they can be read, ``lasting`` so many seconds."""
    batches = Batches(data, model.sde, options, World(), device, workers)
    batches.get(0)
    wait_for(device)
    begin, number = time.perf_counter(), 1
    while time.perf_counter() - begin < lasting:
        batches.get(number)
        number += 1
    # What was sent last comes to the device as well.
    wait_for(device)
    found = (number - 1) * options.batch_size / (time.perf_counter() - begin)
    batches.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="images", help="a config file, or the name of one in configs/")
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--workers", default="0,1,2,4", help="numbers of threads that read ahead")
    parser.add_argument("--device", default="auto")
    options, overrides = parser.parse_known_args()
    try:
        device = choose_device(options.device)
        # Data that are not read have no shape of their own.
        _, data, model = random_model(options.config, [SHAPE, *overrides], device)
        workers = [int(number) for number in options.workers.split(",")]
    except ValueError as error:
        parser.error(str(error))
    training = TrainingOptions(steps=10**9, batch_size=options.batch_size)
    pixels = np.random.default_rng(0).integers(0, 256, (options.items, *data.event_shape), np.uint8)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sets = readers(Path(folder), pixels)
        trainer = Trainer(model, sets["in memory"], partial(denoising_loss), training)
        batch = trainer.micro_batch(0)
        passes = [seconds(lambda: trainer.dry_run(batch), device) for _ in range(3)]
        network = options.batch_size / min(passes[1:])
        for name, held in sets.items():
            found[name] = [rate(held, model, training, device, number) for number in workers]
    print(f"| items per second, {tuple(data.event_shape)} | {' | '.join(f'{n} threads' for n in workers)} |")
    print("|---" * (1 + len(workers)) + "|")
    for name, rates in found.items():
        print(f"| {name} | {' | '.join(f'{value:,.0f}' for value in rates)} |")
    print(f"\nthe network of {options.config} takes {network:,.0f} items/s in training, on {device}\n")
    print(json.dumps({"config": options.config, "device": str(device), "batch_size": options.batch_size,
                      "threads": torch.get_num_threads(), "workers": workers, "network": round(network, 1),
                      **{name: [round(value, 1) for value in rates] for name, rates in found.items()}}))  # fmt: skip


if __name__ == "__main__":
    main()
