"""Rows of captions: what a text encoder makes of the captions of a data set, at once or when it is asked for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sde.condition.text.base import TextEncoder

AT_ONCE = 2**29
"""Bytes up to which the conditions of all captions are kept; those of more are made of each batch."""

PART = 256
"""Captions that are encoded at a time."""


class CaptionRows:
    """One of the conditions that an encoder makes of captions, (n, *shape), computed on indexing by a tensor of
    positions, on the CPU."""

    def __init__(self, encoder: TextEncoder, captions: Sequence[str], kind: str) -> None:
        self.encoder, self.captions, self.kind = encoder, captions, kind

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.encoder([self.captions[i] for i in index.tolist()])[self.kind].cpu()


def rows_of_captions(encoder: TextEncoder, captions: Sequence[str]) -> dict[str, Tensor | CaptionRows]:
    """By kind the conditions that an encoder makes of captions, a row for each: tensors, each caption encoded once, or
    where they take more than AT_ONCE bytes, what computes them."""
    entries = sum(torch.Size(shape).numel() for shape in encoder.shapes.values())
    if 4 * entries * len(captions) > AT_ONCE:
        return {kind: CaptionRows(encoder, captions, kind) for kind in encoder.shapes}
    each = [*dict.fromkeys(captions)]
    parts = [encoder(each[start : start + PART]) for start in range(0, len(each), PART)]
    places = {text: place for place, text in enumerate(each)}
    index = torch.tensor([places[text] for text in captions])
    return {kind: torch.cat([part[kind].cpu() for part in parts])[index] for kind in encoder.shapes}
