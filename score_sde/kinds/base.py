"""A kind of data: what a person sees of an item. The interface, and the kind of items that are numbers alone.

The library knows shapes. What is done with a run asks its kind: how items are drawn, read, shown on a page, compared,
judged, hidden and measured. A new kind is a class here that says where it differs, and a line in ``KINDS``.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from score_sde.kinds.masks import MASKS, MaskOf
from score_sde.kinds.tasks import TASKS, TaskOf
from sde.data.transform import Transform

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Event = tuple[int, ...]
About = Mapping[str, Any]
"""Plain values of a data set that writing an item needs, such as a sample rate (``Dataset.about``)."""


class Kind:
    """What is asked of a kind of data; the defaults are those of arrays of numbers, which have no picture."""

    name: str = "array"
    layout: str | None = None
    """How a set of items is laid out: on a "sheet" of pixels, on one "plane" for all of them, as "curves" with axes for
    each; None for no picture."""
    channels: bool = True
    """Whether the first axis of an item is one of channels, so that the others are its space."""
    files: tuple[str, ...] = ()
    """Suffixes of the files, each with one item, that ``read`` takes. Arrays (.npy, .npz, .csv) may be of any kind."""
    spectral: bool = False
    """Whether ``spectrum`` says of items what their entries do not."""
    page_items: int = 0
    """How many items of a set pages show by ``element``, beside the picture of the set."""
    masks: Mapping[str, MaskOf] = MASKS
    """What entries are observed, by word, as functions (space, value, seed) -> booleans (*space); a word that ends in a
    colon has a value behind it."""
    tasks: Mapping[str, TaskOf] = {"sensing": TASKS["sensing"]}
    """What can be measured of items beside a mask, as functions (shape, value) -> a linear operator."""

    def fits(self, shape: Event) -> bool:
        """Whether items of a shape are of this kind, where nothing else tells it."""
        return True

    def read(self, file: Path, shape: Event, levels: int | None, about: About, flag: str) -> Tensor:
        """The one item (1, *shape) in data units of a file with a suffix of ``files``. Raises ValueError, beginning
        with ``flag`` and the file, for one that cannot be read as such."""
        raise NotImplementedError(f"{self.name} reads no files of its own")

    def write(self, items: Sequence[Tensor], stem: Path, about: About) -> list[Path]:
        """Write samples (*event) in data units, less what they are padded with, as the files that people open items of
        this kind with, beside the .npz of all modes, which holds them too; their paths, which begin with ``stem``."""
        return []

    def shown(self, x: Tensor, lead: int = 1) -> Tensor | None:
        """What a picture can show of items x (*lead, *event), in a form that the layout takes: for a sheet (*lead,
        channels, height, width), for a plane (*lead, 2), for curves (*lead, channels, length); None for no picture."""
        return None

    def scale(self, shown: Tensor, levels: int | None = None) -> tuple[Any, Any]:
        """The lowest and the highest value of an axis, or black and white, of what is ``shown`` in a picture."""
        if levels:
            return 0, levels - 1
        values = shown[shown.isfinite()]
        return values.min().item(), values.max().item()

    def draw(
        self, axes: "Axes", shown: Tensor, role: str = "items", labels: Tensor | None = None, **style: Any
    ) -> None:
        """Draw what is ``shown`` of items (n, ...) on axes, where the layout has some. The role is that of the items in
        the picture: a set of "items", colored by ``labels`` (n,); the "truth", and another set over it; the
        "background"; a "path" in order; or "guesses" of one item, with NaN where it is hidden. ``style`` are options
        of matplotlib."""
        raise NotImplementedError(f"{self.name} has no picture")

    def element(self, item: Tensor, levels: int | None, about: About) -> str:
        """One item (*event) in data units as an element of a page, HTML."""
        values = ", ".join(f"{value:.4g}" for value in item.flatten()[:8].tolist())
        return f"<code>{values}{', ...' * (item.numel() > 8)}</code>"

    def features(self, transform: Transform) -> Callable[[Tensor], Tensor]:
        """What items are compared in: a function of items (B, *event) in data units to features (B, d)."""
        return lambda x: transform.encode(x.double()).flatten(1).double()

    def spectrum(self, transform: Transform, shape: Event, flag: str) -> Callable[[Tensor], Tensor]:
        """What takes items (B, *event) in data units to the features (B, d) of their spectrum. Raises ValueError,
        beginning with ``flag``, for a kind that has none."""
        raise ValueError(f"{flag} is for signals, (channels, length), and the data have shape {shape}: use data")

    def network_input(self, transform: Transform, shape: Event, flag: str) -> Callable[[Tensor], Tensor]:
        """What takes items in data units to what networks of others read, which see images. Raises ValueError for data
        that are none."""
        raise no_images(shape, flag)

    def judge(self, shape: Event, width: int, features: int) -> nn.Sequential:
        """The network, with fresh weights, of items (B, *shape) in model units to the features (B, features) by which a
        classifier of real items tells them apart."""
        entries = int(torch.Size(shape).numel())
        return nn.Sequential(
            nn.Flatten(), nn.Linear(entries, 4 * width), nn.ReLU(), nn.Linear(4 * width, features), nn.ReLU()
        )

    def examples(self, shape: Event) -> int:
        """How many items one picture of several shows."""
        return 10

    def planar(self, shape: Event) -> bool:
        """Whether items are points in the plane, so that densities can be drawn over it."""
        return False


def no_images(shape: Event, flag: str) -> ValueError:
    """What is wrong with items of a shape where images are needed."""
    return ValueError(
        f"{flag} reads images of 1 or 3 channels, and the data have shape {shape}: use --features data or classifier"
    )
