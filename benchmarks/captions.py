"""Captions: does a run draw what they say. Samples of held-out captions, judged by their categories.

    python benchmarks/captions.py --workdir runs/emoji --features efficientnet-lite0-features.safetensors
        [--held_out 500] [--training 200] [--pairs 100] [--cache FOLDER] [--baselines] [--sheet emoji.png]
        [--sampler auto --steps 20 --guidance_scale 3 ...]

The judge is a logistic regression in the features of EfficientNet-Lite, on the training items as they are and as the
run's autoencoder returns them. Its balanced accuracy is the mean over the categories that have 20 held-out items; the
captions that are drawn are spread over these evenly. Beside the samples it judges what they can be at best (held-out
items as the autoencoder returns them), real ones, the training image of the nearest caption, by words in common and by
the run's text encoder, and what chance gives. A copy is as near to a training image as the nearest 1 % of held-out
items are. Flags that are not listed go to --mode sample. Features and samples are kept in --cache, so that a run that
was cut goes on; --baselines draws nothing, and needs no model: the autoencoder alone, or the config. The table is
Markdown; the last line is JSON.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.captioned.bench import CEILING, HELD_OUT, SAMPLES, SPACES, TRAINING, Bench
from benchmarks.captioned.drawing import drawn
from benchmarks.captioned.items import as_bytes
from benchmarks.captioned.judge import Features
from benchmarks.captioned.scores import COPY_QUANTILE
from benchmarks.captioned.sheet import sheet
from benchmarks.report import table
from score_sde.config.config import read_run_config, resolve
from score_sde.run.device import choose_device
from score_sde.run.folder import Run
from sde.files import write_whole

SHOWN = 40
"""Captions of the sheet."""
Draw = Callable[[Sequence[str], int], np.ndarray]
"""Captions and a seed to images."""


def of_samples(bench: Bench, draw: Draw, seed: int, pairs: int, picture: Path | None) -> dict:
    """What is found of samples, beside the scores: their share of the ceiling, copies, and swapped captions; the sheet
    is written where a picture is named."""
    captions = {side: bench.asked(side).captions for side in (HELD_OUT, TRAINING)}
    images = {side: draw(texts, seed) for side, texts in captions.items()}
    bench.samples(images)
    bench.baselines()
    first = list(captions[HELD_OUT][:pairs])
    others, again = draw([*first[1:], first[0]], seed), draw(first, seed + 10**6)
    if picture is not None:
        asked, shown = bench.asked(HELD_OUT), images[HELD_OUT][:SHOWN]
        near = bench.through[0].images[bench.nearest("pixels")[1](shown).index]
        content = sheet(asked.captions[:SHOWN], (asked.images[:SHOWN], shown, near), ("real", "drawn", "nearest"))
        write_whole(picture, content)
    return {
        "of_ceiling": bench.scores[SAMPLES][HELD_OUT][0] / bench.scores[CEILING][HELD_OUT][0],
        "copies": bench.copies(images),
        "swap": bench.swapped(images[HELD_OUT][:pairs], others, again),
    }


def sentences(found: dict) -> list[str]:
    """What ``of_samples`` found, for people."""
    copies, swap = found["copies"], found["swap"]
    lines = [f"Samples of held-out captions reach {found['of_ceiling']:.2f} of the ceiling."]
    lines += [
        f"Copies by {space}: {copies[space][HELD_OUT]:.1%} of {HELD_OUT}, {copies[space][TRAINING]:.1%} of {TRAINING}; "
        f"{COPY_QUANTILE:.0%} of real held-out images."
        for space in SPACES
    ]
    own = copies["features"]["own"]
    return [
        *lines,
        f"The training image nearest by features is the caption's own for {own:.1%} of {TRAINING}.",
        f"Another caption with the same noise changes a picture by {swap['caption_rms']:.3f} of the range (root mean "
        f"square), other noise with the same caption by {swap['seed_rms']:.3f}.",
        f"After the change of captions {swap['new']:.1%} are found in the new one's category, {swap['old']:.1%} in the "
        "old one's.",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workdir", required=True, type=Path)
    parser.add_argument("--features", required=True, type=Path)
    parser.add_argument("--held_out", type=int, default=500)
    parser.add_argument("--training", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "captions")
    parser.add_argument("--baselines", action="store_true")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--device", default="auto")
    options, flags = parser.parse_known_args()
    run = Run(options.workdir, resolve(read_run_config(options.workdir), []), choose_device(options.device))
    counts = {HELD_OUT: options.held_out, TRAINING: options.training}
    bench = Bench(run, Features(options.features, options.cache, run.device.type), counts)
    found: dict = {}
    if options.baselines:
        bench.baselines()
    else:
        convert = as_bytes(run, run.items[0])

        def draw(captions: Sequence[str], seed: int) -> np.ndarray:
            return convert(drawn(options.workdir, captions, seed, flags, options.cache))

        found = of_samples(bench, draw, options.seed, options.pairs, options.sheet)
    rows = ({"": name} | {side: written(*score) for side, score in by.items()} for name, by in bench.scores.items())
    print("", table(rows), "", *(sentences(found) if found else ()), sep="\n")
    counted = {side: len(chosen) for side, chosen in bench.chosen.items()}
    names = [bench.test.names[category] for category in bench.categories]
    about = {"workdir": str(options.workdir), "flags": flags, "captions": counted, "categories": names}
    print(json.dumps({**about, "balanced_accuracy": bench.scores, **found}))


def written(share: float, error: float | None) -> str:
    """A score of the table."""
    return f"{share:.1%}" if error is None else f"{share:.1%} +- {error:.1%}"


if __name__ == "__main__":
    main()
