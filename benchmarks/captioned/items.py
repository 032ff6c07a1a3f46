"""Items with captions: the images of a split as bytes, what they show in words, and their categories."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_sde.run.folder import Run
from sde.autoencoder import LatentTransform
from sde.data import Dataset
from sde.data.names import CLASS_NAMES


@dataclass(frozen=True)
class Captioned:
    """``images`` (n, 3, height, width), uint8, their ``captions`` and ``labels`` (n,), numbers of ``names``."""

    images: np.ndarray
    captions: Sequence[str]
    labels: np.ndarray
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, index: np.ndarray) -> "Captioned":
        """Those at some positions."""
        return Captioned(self.images[index], [self.captions[i] for i in index], self.labels[index], self.names)

    def changed(self, images: np.ndarray) -> "Captioned":
        """The same captions with other images."""
        return Captioned(images, self.captions, self.labels, self.names)


def captioned(run: Run, data: Dataset) -> Captioned:
    """A part of a run's data. Raises ValueError for one without captions, without categories or without images."""
    if data.captions is None:
        raise ValueError("the run's data have no captions: 'text' must be among config.data.conditions")
    if data.labels is None or data.num_classes is None:
        raise ValueError("the run's data have no categories to judge by: config.data.label_by must name them")
    x, _ = data.batch(torch.arange(len(data)))
    names = data.about.get(CLASS_NAMES) or [str(number) for number in range(data.num_classes)]
    return Captioned(as_bytes(run, data)(x), data.captions, data.labels.numpy(), list(names))


def as_bytes(run: Run, data: Dataset) -> Callable[[Any], np.ndarray]:
    """What takes items in data units to images (n, 3, height, width), uint8."""
    convert = run.kind.network_input(data.transform, data.event_shape, "--features")
    return lambda x: convert(torch.as_tensor(x)).numpy()


def transform_of(run: Run, data: Dataset) -> Any:
    """That of a run's model, or of the autoencoder alone where there is no model yet; None where there is neither."""
    if run.model_file.exists():
        return run.sampled_model().transform
    return LatentTransform(run.autoencoder(), data.transform) if run.autoencoder_file.exists() else None


@torch.no_grad()
def reconstructed(run: Run, data: Dataset, transform: Any, batch_size: int = 64) -> np.ndarray:
    """The items of a part of a run's data as a transform returns them, as bytes: through the autoencoder where it has
    one, and else as they are."""
    convert = as_bytes(run, data)

    def through(x: Tensor) -> Tensor:
        inner = transform.encode(transform.dequantize(x, 0.5).to(run.device))
        return transform.quantize(transform.decode(inner)).cpu()

    parts = torch.arange(len(data)).split(batch_size)
    return np.concatenate([convert(through(data.batch(index)[0])) for index in parts])
