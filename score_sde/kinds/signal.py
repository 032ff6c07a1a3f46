"""Signals (channels, length)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from score_sde.kinds.base import About, Event, Kind
from score_sde.kinds.spectrum import log_spectrum
from score_sde.kinds.tasks import TASKS
from sde.data.transform import Transform

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHANNELS = 4
"""Channels of a signal that are drawn, at most."""
WIDTH, HEIGHT = 240, 60
"""Pixels of the element of a page."""

STYLES: dict[str, dict[str, Any]] = {
    "items": {"linewidth": 0.8, "markersize": 2},
    "other": {"color": "black", "linewidth": 0.8},
}
"""Styles of curves by their role."""


class Signal(Kind):
    """A curve for each of the first channels."""

    name = "signal"
    layout = "curves"
    spectral = True
    tasks = TASKS

    def fits(self, shape: Event) -> bool:
        return len(shape) == 2

    def shown(self, x: Tensor, lead: int = 1) -> Tensor | None:
        return x.narrow(lead, 0, min(CHANNELS, x.shape[lead])) if x.ndim - lead == 2 else None

    def spectrum(self, transform: Transform, shape: Event, flag: str) -> Callable[[Tensor], Tensor]:
        return lambda x: log_spectrum(transform.encode(x.double()))

    def draw(
        self, axes: "Axes", shown: Tensor, role: str = "items", labels: Tensor | None = None, **style: Any
    ) -> None:
        curves, usual = shown.flatten(0, 1).numpy().T, STYLES.get(role, STYLES["items"])
        # What is known beside what is hidden may be single entries, which a line does not show.
        marks = ".-" if role == "guesses" and shown.isnan().any() else "-"
        axes.plot(curves, "--" if role == "other" else marks, **usual | style)

    def element(self, item: Tensor, levels: int | None, about: About) -> str:
        shown = self.shown(item[None])
        if shown is None:
            return super().element(item, levels, about)
        low, high = self.scale(shown, levels)
        across, factor = WIDTH / max(1, shown.shape[-1] - 1), HEIGHT / max(high - low, 1e-12)
        lines = []
        for channel in shown[0].tolist():
            points = (f"{i * across:.1f},{(high - value) * factor:.1f}" for i, value in enumerate(channel))
            lines.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="currentColor"/>')
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="a signal of {shown.shape[-1]} values">'
            f"{''.join(lines)}</svg>"
        )

    def examples(self, shape: Event) -> int:
        return 4
