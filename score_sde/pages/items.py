"""Items within a page, where a picture of them is not all that there is to see or hear."""

from torch import Tensor

from score_sde.kinds.base import About, Kind
from sde.data.sizes import trim


def items(x: Tensor, kind: Kind, levels: int | None, about: About, sizes: Tensor | None = None) -> str:
    """The first of items x (n, *event) in data units as elements of a page, of padded ones, by their ``sizes`` (n,),
    what is real; as many as their kind asks for, and "" where the picture is enough."""
    first = list(x[: kind.page_items])
    if sizes is not None:
        first = [trim(item, size) for item, size in zip(first, sizes.tolist(), strict=False)]
    found = [kind.element(item, levels, about) for item in first]
    return f'<div class="items">{"".join(found)}</div>' if found else ""
