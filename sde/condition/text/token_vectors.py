"""Token vectors: each token of a prompt as a vector that is known already, from a file, or as a one-hot row."""

import gzip
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sde.condition.text.base import OUTPUTS, TextEncoder, check_outputs
from sde.condition.text.tokenizer import Characters, FileTokenizer, Tokens
from sde.condition.tree import Condition, Shapes

ONE_HOT_UP_TO = 1024
"""Tokens of a vocabulary up to which they can be one-hot rows."""


class TokenVectors(TextEncoder):
    """A prompt is the sequence (B, max_tokens, width) of its first tokens' vectors, and the vector (B, width) of unit
    length that points as their mean does, without the order of words; some of these two, ``outputs``.

    ``table`` (size, width) holds the vectors of the tokens, None for one-hot rows of that width. The ``tokenizer`` is
    kept, and with the table it is in the state dict, so that a model's file is enough to read prompts. Raises
    ValueError for vectors of another number than the tokenizer's tokens, for a large vocabulary without vectors, and
    for ``outputs`` that are none.
    """

    table: Tensor | None
    file: Tensor | None

    def __init__(
        self,
        tokenizer: Characters | FileTokenizer,
        table: Tensor | None,
        max_tokens: int,
        outputs: Sequence[str] = OUTPUTS,
    ) -> None:
        super().__init__()
        size = tokenizer.size
        if max_tokens < 1:
            raise ValueError(f"max_tokens = {max_tokens}: needs at least 1")
        if table is None and not 1 <= size <= ONE_HOT_UP_TO:
            raise ValueError(
                f"the vocabulary has {size:,} tokens, and without `vectors` each is a one-hot row: needs from 1 to "
                f"{ONE_HOT_UP_TO:,} tokens, or a file of vectors"
            )
        if table is not None and (table.ndim != 2 or len(table) != size or not table.is_floating_point()):
            raise ValueError(
                f"the token vectors have shape {tuple(table.shape)} and type {table.dtype}: needs floats of shape "
                f"({size}, width), one row per token of the tokenizer"
            )
        self.outputs, self.max_tokens, self.size = check_outputs(outputs), max_tokens, size
        self.width = size if table is None else table.shape[1]
        self._tokenizer: Characters | FileTokenizer | None = tokenizer
        self.alphabet = tokenizer.alphabet if isinstance(tokenizer, Characters) else None
        self.register_buffer("table", table)
        self.register_buffer("file", packed(tokenizer.content) if isinstance(tokenizer, FileTokenizer) else None)

    @classmethod
    def build(cls, described: dict[str, Any]) -> "TokenVectors":
        """The encoder of ``describe``, whose tokenizer and vectors are then loaded."""
        of, width = described["tokenizer"], described["width"]
        table = None
        if described["dtype"] is not None:
            table = torch.zeros(of["size"], width, dtype=getattr(torch, described["dtype"]))
        if "alphabet" in of:
            return cls(Characters(of["alphabet"]), table, described["max_tokens"], described["outputs"])
        found = cls(FileTokenizer("", of["size"]), table, described["max_tokens"], described["outputs"])
        found.file, found._tokenizer = torch.zeros(of["bytes"], dtype=torch.uint8), None
        return found

    @property
    def tokenizer(self) -> Characters | FileTokenizer:
        """That of the texts."""
        if self._tokenizer is None:
            if self.file is None:
                raise ValueError("the encoder has no tokenizer: load its state first")
            self._tokenizer = FileTokenizer(unpacked(self.file), self.size)
        return self._tokenizer

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        if self.file is not None:
            self._tokenizer = None

    @property
    def shapes(self) -> Shapes:
        own = {"sequence": (self.max_tokens, self.width), "vector": (self.width,)}
        return {kind: own[kind] for kind in self.outputs}

    def forward(self, texts: Sequence[str]) -> Condition:
        numbers = torch.full((len(texts), self.max_tokens), -1)
        for row, text in zip(numbers, texts, strict=True):
            ids = self.tokenizer(text).ids[: self.max_tokens]
            row[: len(ids)] = torch.tensor(ids, dtype=torch.long)
        if self.table is None:
            rows = F.one_hot(numbers.clamp(min=0), self.width).float()
        else:
            numbers = numbers.to(self.table.device)
            rows = self.table[numbers.clamp(min=0)].float()
        sequence = rows.masked_fill((numbers < 0).unsqueeze(2), torch.nan)
        # The mean of no token is NaN, null.
        own = {"sequence": sequence, "vector": F.normalize(sequence.nanmean(1), dim=1)}
        return {kind: own[kind] for kind in self.outputs}

    def notes(self, texts: Sequence[str]) -> list[str]:
        return [note for text in texts for note in notes_of(text, self.tokenizer(text), self.max_tokens)]

    def describe(self) -> dict[str, Any]:
        of: dict[str, Any] = {"size": self.size}
        of |= {"alphabet": self.alphabet} if self.file is None else {"bytes": len(self.file)}
        dtype = None if self.table is None else str(self.table.dtype).removeprefix("torch.")
        return {
            "name": "token_vectors", "tokenizer": of, "width": self.width, "dtype": dtype,
            "max_tokens": self.max_tokens, "outputs": list(self.outputs),
        }  # fmt: skip


def notes_of(text: str, tokens: Tokens, max_tokens: int) -> list[str]:
    """The sentences of ``TextEncoder.notes`` for a text of these tokens, of which ``max_tokens`` are taken."""
    notes, count = [], len(tokens.ids)
    if tokens.unknown:
        words = ", ".join(repr(word) for word in tokens.unknown)
        notes.append(f"the tokenizer does not know {words} in the prompt {shortened(text)}")
    if count > max_tokens:
        rest = text[tokens.starts[max_tokens] :].strip()
        notes.append(
            f"the prompt {shortened(text)} has {count} tokens, of which the model is told {max_tokens}: "
            f"{shortened(rest)} is left out"
        )
    return notes


def shortened(text: str, most: int = 70) -> str:
    """A text in quotes, of which the middle is left out where it is long."""
    return repr(text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}")


def packed(text: str) -> Tensor:
    """A text as the bytes (n,) of its gzip, the same whenever it is packed."""
    return torch.frombuffer(bytearray(gzip.compress(text.encode(), mtime=0)), dtype=torch.uint8)


def unpacked(content: Tensor) -> str:
    """The inverse of ``packed``."""
    return gzip.decompress(content.cpu().numpy().tobytes()).decode()
