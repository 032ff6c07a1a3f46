"""How far samples are from held-out data."""

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from metrics import frechet_distance
from sde.data import Dataset
from sde.statistics import spread

COMPONENTS = 64
"""Entries of an item that are compared; of more, as many principal components."""

ITEMS = 10_000
"""Held-out and training items at most, spread over the sets."""

DRAWS = 8
"""Sets of training items that are held against the held-out ones."""


class Yardstick:
    """The squared Frechet distance to held-out items, in model units squared.

    It is taken of the items' entries; where they are more than COMPONENTS or than a quarter of the held-out items, of
    as many leading principal components of the training items. With ``labels`` only items of these classes count.
    Raises ValueError where fewer than four are held out.
    """

    def __init__(self, training: Dataset, held_out: Dataset, labels: Tensor | None = None) -> None:
        self.transform = held_out.transform
        known, items = (_vectors(data, labels) for data in (training, held_out))
        if len(items) < 4:
            raise ValueError(f"{len(items)} held-out items of the classes asked for: a distance to them needs 4")
        self.dim = items.shape[1]
        self.width = min(self.dim, COMPONENTS, len(items) // 4)
        self.projection = None
        if self.width < self.dim:
            self.projection = PCA(self.width, svd_solver="randomized", random_state=0).fit(known.numpy())
        self.known, self.items = self._projected(known), self._projected(items)

    def check(self, n: int) -> None:
        """Raise ValueError where n samples are too few to estimate a covariance from."""
        if n < 2 * self.width:
            raise ValueError(
                f"--num_samples={n}: the Frechet distance of {self.width} features needs at least {2 * self.width} "
                "samples"
            )

    def features(self, x: Tensor) -> Tensor:
        """Of samples x (n, *event) in data units: (n, width), float64."""
        return self._projected(self.transform.encode(x).flatten(1).double())

    def distance(self, features: Tensor) -> float:
        """Of samples with these features (n, width) to the held-out items."""
        return frechet_distance(features, self.items)

    def of_training(self, n: int) -> tuple[float, float]:
        """Mean and standard deviation of the distance of n training items, of all where there are fewer."""
        generator = np.random.default_rng(0)
        drawn = (generator.permutation(len(self.known))[:n] for _ in range(DRAWS))
        found = torch.tensor([self.distance(self.known[torch.from_numpy(index)]) for index in drawn])
        return found.mean().item(), found.std(correction=1).item()

    def _projected(self, vectors: Tensor) -> Tensor:
        return vectors if self.projection is None else torch.from_numpy(self.projection.transform(vectors.numpy()))


def _vectors(data: Dataset, labels: Tensor | None) -> Tensor:
    """Items in model units (n, dim), float64."""
    index = torch.arange(len(data))
    if labels is not None and data.labels is not None:
        index = index[torch.isin(data.labels, labels)]
    x, _ = data.batch(index[spread(len(index), ITEMS)])
    return data.transform.encode(x).flatten(1).double()
