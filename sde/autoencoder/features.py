"""Features of images in which an autoencoder's reconstructions are compared beside their pixels."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from sde.data.transform import Transform
from sde.networks.efficientnet_lite import load_efficientnet_lite

STAGES = 4
"""How many stages of the network are compared; later ones say what an image shows, and little of how."""
LEAST_SIZE, MOST_SIZE = 64, 224
"""The side to which smaller and larger images are resized."""


class ImageFeatures(nn.Module):
    """y (B, *event), in an autoencoder's units, to the maps (B, channels, height, width) of the first stages of an
    EfficientNet-Lite, of a file of weights. ``outer`` leads from data units to those of the autoencoder. Raises
    ValueError for items that are no quantized images of one or three channels."""

    def __init__(self, path: Path, event_shape: Sequence[int], outer: Transform) -> None:
        super().__init__()
        if len(event_shape) != 3 or event_shape[0] not in (1, 3) or not outer.num_levels:
            raise ValueError(
                f"features = {str(path)!r}: is a network of images, and the items are no quantized images of one or "
                f"three channels, but of shape {tuple(event_shape)}; leave it empty"
            )
        size = min(max(*event_shape[1:], LEAST_SIZE), MOST_SIZE)
        self.network, self.outer = load_efficientnet_lite(path, size), outer
        self.to_bytes = 255 / (outer.num_levels - 1)

    def forward(self, y: Tensor) -> list[Tensor]:
        # From the middles of cells to the values themselves.
        x = (self.outer.decode(y) - 0.5) * self.to_bytes
        return self.network.maps(x.expand(-1, 3, -1, -1), STAGES)
