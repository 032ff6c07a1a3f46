"""Items within a page, where a picture of them is not all that there is to see or hear."""

from torch import Tensor

from score_sde.kinds.base import About, Kind


def items(x: Tensor, kind: Kind, levels: int | None, about: About) -> str:
    """The first of items x (n, *event) in data units as elements of a page, as many as their kind asks for; "" where
    the picture is enough."""
    found = [kind.element(item, levels, about) for item in x[: kind.page_items]]
    return f'<div class="items">{"".join(found)}</div>' if found else ""
