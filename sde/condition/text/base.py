"""The text encoder: prompts as the conditions that networks know, a sequence of tokens and a vector."""

import abc
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sde.condition.tree import Condition, Shapes

OUTPUTS = ("sequence", "vector")
"""The kinds of conditions that a text may become: its tokens one by one, and one vector for all of it."""


def check_outputs(outputs: Sequence[str]) -> tuple[str, ...]:
    """Some of OUTPUTS, in their order. Raises ValueError for any other, and for none."""
    if not outputs or not {*outputs} <= {*OUTPUTS}:
        raise ValueError(f"outputs = {tuple(outputs)}: needs {' or '.join(OUTPUTS)}, or both")
    return tuple(kind for kind in OUTPUTS if kind in outputs)


class TextEncoder(nn.Module, abc.ABC):
    """Prompts -> a condition with one row per prompt: some of OUTPUTS. It is frozen: nothing of it is trained.

    ``shapes`` are those of the condition without rows, by kind. A sequence (B, L, width) has the same L, the most
    tokens that are taken, whatever the prompts, so that a row never depends on the others; NaN stands behind the last
    token. A prompt without a token is null: NaN throughout, unless the encoder of a loaded pipeline says otherwise.
    """

    @property
    @abc.abstractmethod
    def shapes(self) -> Shapes:
        """The shapes without rows of what ``forward`` returns, by kind."""

    @abc.abstractmethod
    def forward(self, texts: Sequence[str]) -> Condition:
        """Tensors of float32 by the kinds of ``shapes``, one row per text, on the encoder's device."""

    def notes(self, texts: Sequence[str]) -> list[str]:
        """A sentence for each text of which a part is not seen: what was cut off, and words that are not known."""
        return []

    @property
    def null(self) -> Condition:
        """What stands for no text, a single row: NaN, whose embedding networks learn, unless the encoder is one whose
        networks were trained with something else, as the encoding of an empty text."""
        return {kind: torch.full((1, *shape), torch.nan) for kind, shape in self.shapes.items()}

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Plain values, as of JSON, with a "name" in TEXT_ENCODERS, of which ``sde.condition.text.build_text`` makes
        an encoder that the weights are loaded into."""
