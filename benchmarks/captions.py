"""Captions: does a run draw what they say. Samples of held-out captions, judged by their categories.

    python benchmarks/captions.py --workdir runs/emoji --features efficientnet-lite0-features.safetensors
        [--held_out 500] [--training 200] [--pairs 100] [--cache FOLDER] [--baselines] [--sheet emoji.png]
        [--sampler auto --steps 20 --guidance_scale 3 ...]

The judge is a logistic regression in the features of EfficientNet-Lite, on the training items as they are and as the
run's autoencoder returns them. Its balanced accuracy is the mean over the categories that have 20 held-out items; the
captions that are drawn are spread over these evenly. Beside the samples it judges what they can be at best (held-out
items as the autoencoder returns them), real ones, the training image whose caption has the most words in common, and
what chance gives. A copy is nearer to a training image than the nearest 1 % of held-out ones are. Flags that are not
listed go to --mode sample. Features and samples are kept in --cache, so that a run that was cut goes on; --baselines
draws nothing. The table is Markdown; the last line is JSON.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.captioned.drawing import drawn
from benchmarks.captioned.items import Captioned, as_bytes, captioned, reconstructed
from benchmarks.captioned.judge import INVERSE_PENALTY, Features, Judge, pixels
from benchmarks.captioned.scores import (
    COPY_QUANTILE,
    balanced_accuracy,
    by_chance,
    common,
    copy_threshold,
    evenly,
    neighbors,
    root_mean_square,
)
from benchmarks.captioned.sheet import sheet
from benchmarks.captioned.words import nearest_captions
from benchmarks.report import table
from score_sde.config.config import read_run_config, resolve
from score_sde.run.device import choose_device
from score_sde.run.folder import Run
from sde.files import finite, write_whole

SHOWN = 40
"""Captions of the sheet."""
HELD_OUT, TRAINING = "held-out captions", "captions of training items"


class Bench:
    """The items of a run, the judge of them, and the ``rows`` of the table that it fills."""

    def __init__(self, run: Run, features: Features, held_out: int, training: int) -> None:
        self.run, self.features = run, features
        self.data = run.data()
        self.train, self.test = (captioned(run, data) for data in self.data)
        self.trained = run.model_file.exists()
        rebuilt = [reconstructed(run, data) for data in self.data] if self.trained else [self.train.images, self.test.images]
        self.through = [part.changed(images) for part, images in zip((self.train, self.test), rebuilt, strict=True)]
        self.categories = common(self.test.labels)
        self.chosen = {
            HELD_OUT: evenly(self.test.labels, self.categories, held_out),
            TRAINING: evenly(self.train.labels, self.categories, training),
        }
        seen = [self.train, self.through[0]] if self.trained else [self.train]
        labels = np.concatenate([part.labels for part in seen])
        rows = np.concatenate([features(part.images) for part in seen])
        self.judge = Judge(rows, labels, INVERSE_PENALTY["features"])
        self.rows: list[dict[str, str]] = []
        self.found: dict[str, dict] = {}

    def asked(self, which: str) -> Captioned:
        """The items whose captions are drawn."""
        return (self.test if which == HELD_OUT else self.train).rows(self.chosen[which])

    def judged(self, images: np.ndarray) -> np.ndarray:
        """The categories that images look like."""
        return self.judge(self.features(images))

    def add(self, name: str, **found: tuple[float, float | None]) -> None:
        """A row: a share and its standard error under each of the names of columns."""
        columns = {"held_out": HELD_OUT, "training": TRAINING}
        written = {
            columns[key]: f"{share:.1%}" + (f" +- {error:.1%}" if error is not None else "")
            for key, (share, error) in found.items()
        }
        self.rows.append({"": name, **written})
        self.found[name] = found

    def accuracy(self, found: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        """Balanced accuracy and its standard error."""
        return balanced_accuracy(found, labels, self.categories)

    def baselines(self) -> None:
        """The rows that need no sample."""
        asked, own = self.asked(HELD_OUT), self.chosen[HELD_OUT]
        if self.trained:
            rebuilt = self.through[1].rows(own)
            self.add("these items as the autoencoder returns them: the ceiling",
                     held_out=self.accuracy(self.judged(rebuilt.images), asked.labels))  # fmt: skip
        self.add("these items as they are", held_out=self.accuracy(self.judged(asked.images), asked.labels))
        every = self.judged(self.test.images)
        self.add(f"all {len(self.test)} held-out items as they are", held_out=self.accuracy(every, self.test.labels))
        near = self.train.rows(nearest_captions(asked.captions, self.train.captions))
        self.add("the training image of the nearest caption",
                 held_out=self.accuracy(self.judged(near.images), asked.labels))  # fmt: skip
        linear = Judge(pixels(self.train.images), self.train.labels, INVERSE_PENALTY["pixels"])
        self.add("these items as they are, by their pixels",
                 held_out=self.accuracy(linear(pixels(asked.images)), asked.labels))  # fmt: skip
        self.add("always the same category", held_out=(1 / len(self.categories), None))

    def samples(self, images: dict[str, np.ndarray]) -> None:
        """The rows of samples by the captions that were asked."""
        found = {which: self.judged(images[which]) for which in images}
        labels = {which: self.asked(which).labels for which in images}
        for name, score in (
            ("samples", self.accuracy),
            ("samples, captions shuffled", lambda f, y: (by_chance(f, y, self.categories), None)),
        ):
            self.add(name, **{
                key: score(found[which], labels[which]) for key, which in (("held_out", HELD_OUT), ("training", TRAINING))
            })  # fmt: skip

    def copies(self, images: dict[str, np.ndarray]) -> dict:
        """Of samples by the captions asked: how many are copies, in pixels and in features, beside the threshold, and
        the positions of the nearest training images in pixels."""
        result: dict = {}
        for space, of in (("pixels", pixels), ("features", self.features)):
            training, held_out = (of(part.images) for part in self.through)
            scale = training.std() if space == "pixels" else training.std(0).clip(1e-6)
            limit = copy_threshold(neighbors(held_out / scale, training / scale))
            result[space] = {"threshold": limit}
            for which, drawn_images in images.items():
                near = neighbors(of(drawn_images) / scale, training / scale)
                result[space][which] = float((near.distance < limit).mean())
                if space == "pixels":
                    result.setdefault("nearest", {})[which] = near.index
        own = result["nearest"][TRAINING] == self.chosen[TRAINING]
        result["own"] = float(own.mean())
        return result

    def swap(self, base: np.ndarray, swapped: np.ndarray, other: np.ndarray) -> dict[str, float]:
        """What becomes of pictures ``base`` of the first captions when each gets the next caption and keeps its noise,
        ``swapped``, or keeps its caption and gets ``other`` noise."""
        labels = self.asked(HELD_OUT).labels[: len(base)]
        new, found = np.roll(labels, -1), self.judged(swapped)
        differ = new != labels
        return {
            "caption_rms": root_mean_square(base, swapped) / 255,
            "seed_rms": root_mean_square(base, other) / 255,
            "follows": float((found == new)[differ].mean()),
            "stays": float((found == labels)[differ].mean()),
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    features = Features(options.features, options.cache, run.device.type)
    bench = Bench(run, features, options.held_out, options.training)
    result: dict = {"workdir": str(options.workdir), "categories": [bench.test.names[c] for c in bench.categories]}
    if not options.baselines:
        convert = as_bytes(run, bench.data[0])

        def draw(captions: list[str], seed: int) -> np.ndarray:
            return convert(drawn(options.workdir, captions, seed, flags, options.cache))

        captions = {which: list(bench.asked(which).captions) for which in (HELD_OUT, TRAINING)}
        images = {which: draw(texts, options.seed) for which, texts in captions.items()}
        bench.samples(images)
    bench.baselines()
    print(table(bench.rows))
    if not options.baselines:
        first = captions[HELD_OUT][: options.pairs]
        change = bench.swap(
            images[HELD_OUT][: options.pairs],
            draw(first[1:] + first[:1], options.seed),
            draw(first, options.seed + 10**6),
        )
        copies = bench.copies(images)
        nearest = copies.pop("nearest")
        ceiling = bench.found["these items as the autoencoder returns them: the ceiling"]["held_out"][0]
        ratio = bench.found["samples"]["held_out"][0] / ceiling
        print(f"\nSamples of held-out captions reach {ratio:.2f} of the ceiling.")
        for space in ("pixels", "features"):
            print(f"Copies by their {space}: {copies[space][HELD_OUT]:.1%} of {HELD_OUT}, {copies[space][TRAINING]:.1%} of "
                  f"{TRAINING} ({COPY_QUANTILE:.0%} of real held-out images).")  # fmt: skip
        print(f"The nearest training image is the caption's own for {copies['own']:.1%} of {TRAINING}.")
        print(f"Another caption and the same noise changes a picture by {change['caption_rms']:.3f} of the range (root mean "
              f"square), the same caption and other noise by {change['seed_rms']:.3f}; the category found is the new "
              f"caption's for {change['follows']:.1%}, the old one's for {change['stays']:.1%}.")  # fmt: skip
        result |= {"of_ceiling": ratio, "copies": copies, "swap": change, "flags": flags}
        if options.sheet:
            shown = slice(SHOWN)
            asked = bench.asked(HELD_OUT)
            near = bench.through[0].images[nearest[HELD_OUT][shown]]
            content = sheet(
                asked.captions[shown], [asked.images[shown], images[HELD_OUT][shown], near], ("real", "drawn", "nearest")
            )
            write_whole(options.sheet, content)
    print(json.dumps(finite({**result, "balanced_accuracy": bench.found})))


if __name__ == "__main__":
    main()
