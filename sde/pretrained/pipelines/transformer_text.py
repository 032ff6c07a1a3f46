"""The text of pipelines of transformers: T5 alone, or beside CLIP."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from sde.condition.tree import Condition
from sde.pretrained.pipelines.text import PipelineText, check_skip, clip_states

LENGTHS = {"sd3": 256, "pixart": 120, "sigma": 300, "flux": 512}
"""The tokens of T5 that the pipelines take unless told otherwise."""


class SD3Text(PipelineText):
    """Two CLIPs and T5: the states before the last layer of both CLIPs side by side, filled up with zeros to the width
    of T5's, and those of T5 behind them; the vector has both projected ones. Where T5 is left out, its tokens are
    zeros, of ``width`` (Esser et al. 2024, section 4)."""

    def __init__(
        self, tokenizers: Sequence[Any], encoders: Sequence[Any], width: int, length: int, clip_skip: int = 0
    ) -> None:
        super().__init__(tokenizers, encoders)
        self.clip_skip = check_skip(clip_skip, min(one.config.num_hidden_layers for one in encoders[:2]))
        self.width, self.length = width, length
        self.lengths = [*self.lengths[:2], length]

    def forward(self, texts: Sequence[str]) -> Condition:
        return self._encoded(texts, self.clip_skip)

    def negative(self, texts: Sequence[str]) -> Condition:
        return self._encoded(texts, 0)

    @torch.no_grad()
    def _encoded(self, texts: Sequence[str], skip: int) -> Condition:
        found = [clip_states(self.encoders[number], self.tokens(number, texts), skip) for number in (0, 1)]
        clips = torch.cat([states for states, _ in found], -1)
        if self.tokenizers[2] is None:
            behind: Tensor = clips.new_zeros(len(clips), self.length, self.width)
        else:
            behind = self.encoders[2](self.tokens(2, texts).input_ids).last_hidden_state.float()
        sequence = torch.cat([pad(clips, (0, self.width - clips.shape[-1])), behind], 1)
        return {"sequence": sequence, "vector": torch.cat([pooled for _, pooled in found], 1)}


class T5Text(PipelineText):
    """T5 alone, as PixArt has it: the states of the tokens that are there, NaN behind them."""

    def __init__(self, tokenizer: Any, encoder: Any, length: int) -> None:
        super().__init__([tokenizer], [encoder])
        self.lengths = [length]

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Condition:
        # PixArt's pipelines lower and strip what they are given.
        tokens = self.tokens(0, [text.lower().strip() for text in texts])
        states = self.encoders[0](tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state.float()
        return {"sequence": states.masked_fill(tokens.attention_mask[..., None] == 0, torch.nan)}


class FluxText(PipelineText):
    """CLIP's pooled state as the vector, and T5's states as the sequence."""

    def __init__(self, tokenizers: Sequence[Any], encoders: Sequence[Any], length: int) -> None:
        super().__init__(tokenizers, encoders)
        self.lengths = [self.lengths[0], length]

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Condition:
        vector = self.encoders[0](self.tokens(0, texts).input_ids).pooler_output
        sequence = self.encoders[1](self.tokens(1, texts).input_ids).last_hidden_state
        return {"sequence": sequence.float(), "vector": vector.float()}
