"""The reference of a comparison: how far samples are from real data, by one metric or several."""

from collections.abc import Sequence
from functools import cached_property

import torch
from sklearn.decomposition import PCA
from torch import Tensor

from score_sde.evaluation.class_mix import matching
from score_sde.evaluation.features import Extractor
from score_sde.evaluation.power import Power, RealItems, measure_power
from score_sde.evaluation.scores import NOT_TOLD, verdict, with_power
from score_sde.metrics.metric import METRICS
from score_sde.metrics.splits import Division, Splits
from sde.data import Dataset
from sde.data.statistics import spread
from sde.distributed.world import World

MAX_COMPONENTS = 64
"""Features of an item that are compared; of more, as many principal components."""

WORDS = {"test": "held-out", "train": "training"}
"""What the items of a split are called."""

MAX_ITEMS = 10_000
"""Held-out and training items at most, spread over the sets."""


class Reference:
    """``metrics``, keys of METRICS, of samples against the items of a ``split``, in the features of an ``extractor``.

    Where these are more than MAX_COMPONENTS or than a quarter of the items, as many leading principal components of the
    training items' features are compared. With ``labels`` the items are in the parts of these classes. ``samples`` is
    how many there will be of each candidate. Raises ValueError for fewer than four items.
    """

    def __init__(
        self,
        training: Dataset,
        held_out: Dataset,
        extractor: Extractor,
        metrics: Sequence[str] = ("frechet",),
        labels: Tensor | None = None,
        *,
        samples: int,
        split: str = "test",
    ) -> None:
        self.extractor, self.metrics, self.samples = extractor, tuple(metrics), samples
        self.word = WORDS[split]
        indices = [_of_classes(data, labels) for data in (training, held_out)]
        places = [*zip((training, held_out), indices, strict=True)]
        known, items = features = [self._extracted(data.batch(index)[0]) for data, index in places]
        if split == "train":
            places, (items, known) = places[::-1], features
        if len(items) < 4:
            asked = "" if labels is None else " of the classes asked for"
            raise ValueError(f"{len(items)} {self.word} items{asked}: to measure by them needs 4")
        self.dim = items.shape[1]
        self.width = min(self.dim, MAX_COMPONENTS, len(items) // 4)
        self.projection = None
        if self.width < self.dim:
            self.projection = PCA(self.width, svd_solver="randomized", random_state=0).fit(features[0].numpy())
        self.known, self.items = self._projected(known), self._projected(items)
        self.division = Division.of(samples, len(self.items), len(self.known))
        self.places = places[1], places[0]

    def check(self) -> None:
        """Raise ValueError where the samples are too few for one of the metrics."""
        n = self.samples
        for name in self.metrics:
            # Of two samples per feature a covariance has all its rank without a part of them, too.
            least = 2 * self.width if name == "frechet" else METRICS[name].items(self.width)
            title, found = METRICS[name].title, len(self.items)
            if n < least:
                raise ValueError(
                    f"--num_samples={n}: the {title} of {self.width} features needs at least {least} samples"
                )
            if found < least and name != "frechet":
                raise ValueError(f"--metrics={name}: the {title} needs {least} {self.word} items, of {found}")

    def features(self, x: Tensor) -> Tensor:
        """Of samples x (n, *event) in data units: (n, width), float64."""
        return self._projected(self._extracted(x))

    def measure(self, name: str, features: Tensor) -> float:
        """The metric of samples with these features (n, width) and the items."""
        return METRICS[name](features, self.items)

    @cached_property
    def real(self) -> dict[str, Splits]:
        """By metric, what as many real items have in the samples' place."""
        return {
            name: Splits.measure(METRICS[name], self.items, self.known, self.division,
                                 least=METRICS[name].least(self.division.n))
            for name in self.metrics
        }  # fmt: skip

    def reading(self, name: str, features: Tensor) -> str:
        """How samples with these features compare with real items in their place."""
        own, items = (
            part[spread(len(part), size)] for part, size in ((features, self.division.n), (self.items, self.division.m))
        )
        found = verdict(self.real[name].compared(METRICS[name](own, items)), METRICS[name].larger)
        return with_power(self.power[name]) if found == NOT_TOLD else found

    @cached_property
    def power(self) -> dict[str, Power]:
        """By metric, what it tells of spoilt real items."""
        items = RealItems(self.items, self.known, self.places, self.features)
        return measure_power(items, self.real, self.division)

    def _extracted(self, x: Tensor) -> Tensor:
        # A comparison is the work of one process.
        return self.extractor(World(), lambda rows: x[rows], len(x), 256).features

    def _projected(self, features: Tensor) -> Tensor:
        return features if self.projection is None else torch.from_numpy(self.projection.transform(features.numpy()))


def _of_classes(data: Dataset, labels: Tensor | None) -> Tensor:
    """Positions of the items in the parts of these classes, of all without labels; MAX_ITEMS at most."""
    index = matching(data, labels)
    return index[spread(len(index), MAX_ITEMS)]
