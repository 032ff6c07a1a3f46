"""SDXL's text: two encoders, or the second alone as its refiner has it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sde.condition.tree import Condition
from sde.pretrained.pipelines.micro_conditions import SCORES, MicroConditions
from sde.pretrained.pipelines.text import PipelineText, check_skip, clip_states


class SDXLText(PipelineText):
    """The sequence has the states before the last layer of every encoder side by side; the vector has the last one's
    projected one and, behind it, the numbers of ``micro``, the micro-conditions, with those of prompts to steer away
    from in ``micro_negative``. ``zeros``: no text is zeros, beside those numbers, and not the encoding of an empty
    one."""

    def __init__(
        self,
        tokenizers: Sequence[Any],
        encoders: Sequence[Any],
        micro: MicroConditions,
        zeros: bool = True,
        clip_skip: int = 0,
    ) -> None:
        super().__init__(tokenizers, encoders, zeros)
        self.clip_skip = check_skip(clip_skip, min(one.config.num_hidden_layers for one in encoders))
        self.micro = micro
        self.micro_negative = micro if micro.score is None else replace(micro, score=SCORES[1])

    def forward(self, texts: Sequence[str]) -> Condition:
        return self._encoded(texts, self.micro, self.clip_skip)

    def negative(self, texts: Sequence[str]) -> Condition:
        return self._encoded(texts, self.micro_negative, 0)

    @property
    def null(self) -> Condition:
        empty = self.negative([""])
        if self.zeros:
            told = len(self.micro_negative.numbers())
            empty["sequence"].zero_()
            empty["vector"][:, :-told] = 0
        return empty

    @torch.no_grad()
    def _encoded(self, texts: Sequence[str], micro: MicroConditions, skip: int) -> Condition:
        sequences: list[Tensor] = []
        for number, encoder in enumerate(self.encoders):
            states, pooled = clip_states(encoder, self.tokens(number, texts), skip)
            sequences.append(states)
        told = pooled.new_tensor(micro.numbers()).expand(len(pooled), -1)
        return {"sequence": torch.cat(sequences, -1), "vector": torch.cat([pooled, told], 1)}
