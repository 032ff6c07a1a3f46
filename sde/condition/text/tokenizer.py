"""Tokenizers: texts to numbers of tokens, by a Hugging Face ``tokenizers`` file, CLIP's vocabulary, or characters."""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sde.condition.text.clip_vocabulary import HEADER, clip_tokenizer
from sde.files import expanded

BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
"""Tokens by which a vocabulary spells, byte by byte, what it does not know."""

EXTRA = "tokenizers need a library: pip install 'score-sde[text]', or pip install tokenizers"


class Tokens(NamedTuple):
    """The numbers ``ids`` of a text's tokens, the place in the text where each ``starts``, and the ``unknown`` words:
    those with a part that the vocabulary has no token for."""

    ids: list[int]
    starts: list[int]
    unknown: list[str]


class Characters:
    """Each character of a text is a token; those that the ``alphabet`` lacks are left out."""

    def __init__(self, alphabet: str) -> None:
        self.alphabet = alphabet
        self._numbers = {character: number for number, character in enumerate(alphabet)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Characters":
        """Of all characters that are in the texts, in the order of their code points."""
        return cls("".join(sorted({character for text in texts for character in text})))

    @property
    def size(self) -> int:
        return len(self.alphabet)

    def __call__(self, text: str) -> Tokens:
        known = [(self._numbers[c], place) for place, c in enumerate(text) if c in self._numbers]
        unknown = {c: None for c in text if c not in self._numbers}
        return Tokens([number for number, _ in known], [place for _, place in known], [*unknown])


class FileTokenizer:
    """A tokenizer of the ``tokenizers`` library, of the JSON text that it stores, which is read when first asked for.
    Texts get no special tokens around them; ``size`` is the number of tokens, where it is known before. Raises
    ImportError, which names the extra, without the library."""

    def __init__(self, content: str, size: int | None = None) -> None:
        self.content, self._size = content, size

    @cached_property
    def _library(self) -> Any:
        try:
            from tokenizers import Tokenizer as LibraryTokenizer
        except ImportError:
            raise ImportError(EXTRA) from None
        try:
            found = LibraryTokenizer.from_str(self.content)
        # The library raises plain exceptions.
        except Exception as error:
            raise ValueError(f"the tokenizer is no JSON of the tokenizers library ({error})") from None
        found.no_truncation()
        found.no_padding()
        return found

    def opened(self) -> "FileTokenizer":
        """Itself, read now. Raises ValueError for a text that is no tokenizer."""
        self._library  # noqa: B018 (it is read)
        return self

    @property
    def size(self) -> int:
        return self._library.get_vocab_size() if self._size is None else self._size

    @cached_property
    def _unknown(self) -> int | None:
        """The number of the token for what is not known: some models name it, and Unigram has its number alone."""
        told = json.loads(self._library.to_str())["model"]
        number, name = told.get("unk_id"), told.get("unk_token")
        return self._library.token_to_id(name) if number is None and name is not None else number

    def __call__(self, text: str) -> Tokens:
        found = self._library.encode(text, add_special_tokens=False)
        starts = [start for start, _ in found.offsets]
        strange = [
            start for number, token, start in zip(found.ids, found.tokens, starts, strict=True)
            if number == self._unknown or BYTE.fullmatch(token)
        ]  # fmt: skip
        return Tokens(found.ids, starts, [*dict.fromkeys(word_at(text, start) for start in strange)])


def word_at(text: str, place: int) -> str:
    """The word of a text, between spaces, that a place is in, or that follows it."""
    for found in re.finditer(r"\S+", text):
        if found.end() > place:
            return found.group()
    return text[place:].strip()


def read_tokenizer(name: str, texts: Sequence[str]) -> Characters | FileTokenizer:
    """The tokenizer of a name: "characters", those of the texts; or the path of a JSON file of the ``tokenizers``
    library, or of CLIP's byte-pair vocabulary, bpe_simple_vocab_16e6.txt, both gzipped or not. Raises ValueError for
    any other."""
    if name == "characters":
        return Characters.of(texts)
    given, path = f"tokenizer = {name!r}", Path(expanded(name))
    if not path.is_file():
        raise ValueError(
            f"{given} does not exist (looked in {Path.cwd()}): needs characters, a JSON file of the tokenizers "
            "library, or CLIP's vocabulary, bpe_simple_vocab_16e6.txt.gz"
        )
    content = path.read_bytes()
    try:
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{given} is neither text in UTF-8 nor a whole gzip of it ({error})") from None
    if text.lstrip().startswith(HEADER):
        text = clip_tokenizer(text)
    if not text.lstrip().startswith("{"):
        raise ValueError(
            f"{given} begins with {text[:20]!r}: needs a JSON file of the tokenizers library, or CLIP's vocabulary, "
            "bpe_simple_vocab_16e6.txt"
        )
    try:
        return FileTokenizer(text).opened()
    except ValueError as error:
        raise ValueError(f"{given}: {error}") from None
