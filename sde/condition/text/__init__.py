"""Text as a condition: tokenizers, and encoders of prompts into sequences and vectors."""

from collections.abc import Callable, Sequence
from typing import Any

from sde.condition.text.base import OUTPUTS, TextEncoder
from sde.condition.text.token_vectors import TokenVectors
from sde.condition.text.tokenizer import read_tokenizer
from sde.condition.text.transformers_text import TransformersText
from sde.condition.text.vectors_file import read_vectors


def read_token_vectors(
    texts: Sequence[str],
    *,
    tokenizer: str = "characters",
    vectors: str = "",
    max_tokens: int = 0,
    outputs: tuple[str, ...] = OUTPUTS,
) -> TokenVectors:
    """Vectors of a file, or one-hot rows without one, of the tokens of ``read_tokenizer``; ``max_tokens`` are taken of
    a prompt, 0 for as many as the longest of the texts has. Raises ValueError as these do."""
    reader, table = read_tokenizer(tokenizer, texts), read_vectors(vectors) if vectors else None
    longest = max_tokens or max((len(reader(text).ids) for text in {*texts}), default=0)
    return TokenVectors(reader, table, longest or 1, outputs)


def read_transformers(
    texts: Sequence[str], *, folder: str = "", max_tokens: int = 0, outputs: tuple[str, ...] = OUTPUTS
) -> TransformersText:
    """The text encoder of a local folder, as the transformers library writes it; see ``TransformersText.read``."""
    return TransformersText.read(folder, texts, max_tokens, outputs)


TEXT_ENCODERS: dict[str, Callable[..., TextEncoder]] = {
    "token_vectors": read_token_vectors,
    "transformers": read_transformers,
}
"""Text encoders by name: functions of the training texts and of keyword arguments."""

BUILDERS: dict[str, Callable[[dict], TextEncoder]] = {
    "token_vectors": TokenVectors.build,
    "transformers": TransformersText.build,
}


def build_text(described: dict[str, Any]) -> TextEncoder:
    """The encoder of ``TextEncoder.describe``, for a state to be loaded into. Raises ValueError for one that no state
    holds."""
    if described["name"] not in BUILDERS:
        raise ValueError(f"the text encoder of a {described['name']} is a part of it, and comes by loading that")
    return BUILDERS[described["name"]](described)
