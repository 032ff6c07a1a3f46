"""Text encoders of pipelines: prompts as the sequence and the vector that their networks were trained with."""

import abc
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sde.condition.text.base import TextEncoder
from sde.condition.text.transformers_text import tokenizer_notes
from sde.condition.tree import Condition, Shapes


class PipelineText(TextEncoder, abc.ABC):
    """Prompts through the tokenizers and text encoders of a pipeline, ``encoders`` with ``tokenizers`` (n, None for
    one that is left out), ``lengths`` the tokens that each takes.

    What stands for no text is the encoding of the empty one, unless ``zeros``: then it is zeros.
    """

    def __init__(self, tokenizers: Sequence[Any], encoders: Sequence[Any], zeros: bool = False) -> None:
        super().__init__()
        self.tokenizers, self.zeros = list(tokenizers), zeros
        self.encoders = torch.nn.ModuleList(torch.nn.Identity() if one is None else one for one in encoders)
        self.lengths = [0 if one is None else one.model_max_length for one in tokenizers]
        self.requires_grad_(False).eval()

    @abc.abstractmethod
    def forward(self, texts: Sequence[str]) -> Condition: ...

    def negative(self, texts: Sequence[str]) -> Condition:
        """As ``forward``, of prompts to steer away from, which some pipelines encode in another way."""
        return self(texts)

    @cached_property
    def shapes(self) -> Shapes:
        # Asked of the encoder once.
        return {kind: tuple(value.shape[1:]) for kind, value in self.null.items()}

    @property
    def null(self) -> Condition:
        empty = self.negative([""])
        return {kind: torch.zeros_like(value) for kind, value in empty.items()} if self.zeros else empty

    def tokens(self, number: int, texts: Sequence[str]) -> Any:
        """What a tokenizer makes of texts, filled up or cut to its length, on the device of its encoder."""
        found = self.tokenizers[number](
            list(texts), padding="max_length", max_length=self.lengths[number], truncation=True, return_tensors="pt"
        )
        return found.to(self.encoders[number].device)

    def notes(self, texts: Sequence[str]) -> list[str]:
        pairs = [(one, length) for one, length in zip(self.tokenizers, self.lengths, strict=True) if one is not None]
        found = (note for text in texts for one, length in pairs for note in tokenizer_notes(one, text, length))
        # Tokenizers of one vocabulary say the same.
        return [*dict.fromkeys(found)]

    def describe(self) -> dict[str, Any]:
        """The kind and where it comes from: it is rebuilt by loading the pipeline."""
        return {"name": "pipeline", "kind": type(self).__name__}


class CLIPText(PipelineText):
    """One CLIP, as Stable Diffusion 1 and 2 have it: the sequence after the last layer and its normalization. With
    ``clip_skip`` k it is that after the layer k before it, normalized all the same; of prompts to steer away from and
    of the empty one the last layer's, whatever the skip, as diffusers does."""

    def __init__(self, tokenizer: Any, encoder: Any, clip_skip: int = 0) -> None:
        super().__init__([tokenizer], [encoder])
        self.clip_skip = check_skip(clip_skip, encoder.config.num_hidden_layers)

    def forward(self, texts: Sequence[str]) -> Condition:
        return {"sequence": self._encoded(texts, self.clip_skip)}

    def negative(self, texts: Sequence[str]) -> Condition:
        return {"sequence": self._encoded(texts, 0)}

    @torch.no_grad()
    def _encoded(self, texts: Sequence[str], skip: int) -> Tensor:
        encoder: Any = self.encoders[0]
        tokens = self.tokens(0, texts)
        mask = tokens.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
        found = encoder(tokens.input_ids, attention_mask=mask, output_hidden_states=bool(skip))
        if not skip:
            return found.last_hidden_state.float()
        # transformers 5 has no module between a model and its layers.
        inner: Any = getattr(encoder, "text_model", encoder)
        return inner.final_layer_norm(found.hidden_states[-(skip + 1)]).float()


def check_skip(clip_skip: int, layers: int) -> int:
    """A number of layers that are left out. Raises ValueError for one that the encoder has not."""
    if not (isinstance(clip_skip, int) and 0 <= clip_skip < layers):
        raise ValueError(f"clip_skip = {clip_skip!r}: needs a whole number from 0 to {layers - 1}")
    return clip_skip


def clip_states(encoder: Any, tokens: Any, skip: int) -> tuple[Tensor, Tensor]:
    """The sequence after the layer before the last, or ``skip`` before that, as it is, and the pooled vector, projected
    where the encoder has a projection; both in float32."""
    found = encoder(tokens.input_ids, output_hidden_states=True)
    pooled = found.text_embeds if hasattr(found, "text_embeds") else found.pooler_output
    return found.hidden_states[-(skip + 2)].float(), pooled.float()
