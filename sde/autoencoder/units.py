"""Units: the transform from data units to those of an autoencoder."""

from sde.autoencoder.base import Autoencoder
from sde.data.dataset import Dataset
from sde.data.transform import Transform


def outer_transform(autoencoder: Autoencoder, data: Dataset) -> Transform:
    """The transform of the data, where the autoencoder takes any units; or the one that leads the values of the data to
    its ``unit_range``: of quantized ones the middles of the first and the last cell, of others the least and the
    largest. Raises ValueError where the data are already led by a learned transform."""
    own = data.transform
    if not isinstance(own, Transform):
        raise ValueError("the data are latents of another autoencoder: take the data as they are")
    if autoencoder.unit_range is None:
        return own
    low, high = autoencoder.unit_range
    first, last = (0.5, own.num_levels - 0.5) if own.num_levels else (data.statistics.low, data.statistics.high)
    scale = (last - first) / (high - low)
    return Transform((first - low * scale,), (scale,), own.num_levels)
