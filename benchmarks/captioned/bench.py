"""The bench: a run's items, the judge of them, and what it finds of samples and of what stands beside them."""

from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.captioned.items import Captioned, captioned, reconstructed, transform_of
from benchmarks.captioned.judge import Features, Judge, pixels
from benchmarks.captioned.scores import (
    LEAST_ITEMS,
    Neighbors,
    balanced_accuracy,
    by_chance,
    common,
    copy_threshold,
    evenly,
    neighbors,
    root_mean_square,
)
from benchmarks.captioned.words import nearest_by_encoder, nearest_by_words
from score_sde.run.folder import Run

HELD_OUT, TRAINING = "held-out captions", "captions of training items"
SAMPLES, CEILING = "samples", "these items as the autoencoder returns them: the ceiling"
SPACES = ("pixels", "features")
Score = tuple[float, float | None]
"""A balanced accuracy and its standard error, None for what is exact."""


class Bench:
    """Of a run with captions: ``train`` and ``test`` items, ``through`` the two as its autoencoder returns them, the
    ``categories`` that count, and the positions ``chosen`` of ``counts`` items on each side, whose captions are drawn.
    ``scores`` has what was found, by what was judged and by side."""

    def __init__(self, run: Run, features: Features, counts: Mapping[str, int]) -> None:
        self.features, self.text, data = features, run.text, run.items
        self.train, self.test = (captioned(run, part) for part in data)
        transform = transform_of(run, data[0])
        self.trained = transform is not None
        self.through = [
            items.changed(reconstructed(run, part, transform)) if self.trained else items
            for items, part in zip((self.train, self.test), data, strict=True)
        ]
        self.categories = common(self.test.labels)
        if len(self.categories) < 2:
            raise ValueError(
                f"{len(self.categories)} of the categories of {len(self.test)} held-out items have {LEAST_ITEMS}: it "
                "takes two to be told apart; hold out more, by config.data.test_fraction"
            )
        self.chosen = {
            side: evenly(items.labels, self.categories, counts[side])
            for side, items in ((HELD_OUT, self.test), (TRAINING, self.train))
        }
        seen = [self.train, self.through[0]] if self.trained else [self.train]
        rows = np.concatenate([features(items.images) for items in seen])
        self.judge = Judge(rows, np.concatenate([items.labels for items in seen]))
        self.scores: dict[str, dict[str, Score]] = {}

    def asked(self, side: str) -> Captioned:
        """The items whose captions are drawn."""
        return (self.test if side == HELD_OUT else self.train).rows(self.chosen[side])

    def judged(self, images: np.ndarray) -> np.ndarray:
        """The categories that images look like."""
        return self.judge(self.features(images))

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> Score:
        """The balanced accuracy of the judge on images of these labels."""
        return balanced_accuracy(self.judged(images), labels, self.categories)

    def baselines(self) -> None:
        """Scores of what needs no sample."""
        asked = self.asked(HELD_OUT)
        linear = Judge(pixels(self.train.images), self.train.labels)
        words = [asked.captions, self.train.captions]
        near = {"words in common": nearest_by_words(*words)}
        if self.text is not None:
            near["the run's text encoder"] = nearest_by_encoder(*words, self.text)
        found: dict[str, Score] = {}
        if self.trained:
            found[CEILING] = self.accuracy(self.through[1].images[self.chosen[HELD_OUT]], asked.labels)
        found |= {
            "these items as they are": self.accuracy(asked.images, asked.labels),
            f"all {len(self.test)} held-out items as they are": self.accuracy(self.test.images, self.test.labels),
            **{
                f"the training image of the nearest caption, by {of}": self.accuracy(self.train.images[i], asked.labels)
                for of, i in near.items()
            },
            "these items, by a judge of pixels": balanced_accuracy(
                linear(pixels(asked.images)), asked.labels, self.categories
            ),
            "always the same category": (1 / len(self.categories), None),
        }
        self.scores |= {name: {HELD_OUT: score} for name, score in found.items()}

    def samples(self, images: Mapping[str, np.ndarray]) -> None:
        """Scores of one picture for each caption that is asked, by side."""
        found = {side: (self.judged(drawn), self.asked(side).labels) for side, drawn in images.items()}
        self.scores[SAMPLES] = {side: balanced_accuracy(*pair, self.categories) for side, pair in found.items()}
        self.scores["samples, captions shuffled"] = {
            side: (by_chance(*pair, self.categories), None) for side, pair in found.items()
        }

    def nearest(self, space: str) -> tuple[float, Callable[[np.ndarray], Neighbors]]:
        """The distance up to which a picture is a copy, in one of SPACES, and what finds the nearest training images.
        Distances are to training images as the autoencoder returns them, whose copy it would be."""
        of = pixels if space == "pixels" else self.features
        training = of(self.through[0].images)
        # All pixels have one scale, features have each their own.
        scale = 1.0 if space == "pixels" else training.std(0).clip(1e-6)
        training = training / scale

        def find(images: np.ndarray) -> Neighbors:
            return neighbors(of(images) / scale, training)

        return copy_threshold(find(self.through[1].images)), find

    def copies(self, images: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        """By SPACES the threshold, the share of copies by side, and of captions of training items the share whose
        nearest training image is their own."""
        result = {}
        for space in SPACES:
            limit, find = self.nearest(space)
            near = {side: find(drawn) for side, drawn in images.items()}
            own = float((near[TRAINING].index == self.chosen[TRAINING]).mean())
            shares = {side: float((found.distance <= limit).mean()) for side, found in near.items()}
            result[space] = {"threshold": limit, "own": own, **shares}
        return result

    def swapped(self, base: np.ndarray, others: np.ndarray, again: np.ndarray) -> dict[str, float]:
        """What becomes of pictures ``base`` of the first held-out captions when each gets the caption behind it and
        keeps its noise, ``others``, and when it keeps its caption and gets other noise, ``again``: root mean squares of
        the changes, in shares of the range, and the shares found in the category of the new and of the old caption, of
        those whose categories differ."""
        old = self.asked(HELD_OUT).labels[: len(base)]
        new, found = np.roll(old, -1), self.judged(others)
        differ = new != old
        return {
            "caption_rms": root_mean_square(base, others) / 255,
            "seed_rms": root_mean_square(base, again) / 255,
            "new": float((found == new)[differ].mean()),
            "old": float((found == old)[differ].mean()),
        }
