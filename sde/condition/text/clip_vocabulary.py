"""CLIP's byte-pair vocabulary (Radford et al. 2021, section 2.4) as a tokenizer of the ``tokenizers`` library."""

from typing import Any

HEADER = ('"bpe_simple_vocab_16e6.txt#version', "#version")
"""How the file of its merges begins."""

MERGES = 49_152 - 256 - 2
"""Of the file's merges those that CLIP takes: its vocabulary has 49,152 tokens before the ends of words are counted,
256 of them bytes, and two that begin and end a text."""

START, END = "<|startoftext|>", "<|endoftext|>"

WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
"""What is split off before pairs are merged: contractions, letters, single digits, and runs of anything else."""


def byte_characters() -> list[str]:
    """The 256 characters that stand for bytes, in the order of their tokens: those that can be seen stand for
    themselves, and come first; the others are code points from 256 (Radford et al. 2019, their code)."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in seen] + [chr(256 + number) for number in range(256 - len(seen))]


def clip_tokenizer(text: str) -> str:
    """The JSON of a tokenizer that gives CLIP's numbers, of the text of bpe_simple_vocab_16e6.txt. Raises ValueError
    for a file that is cut, and ImportError without the library."""
    pairs = [tuple(line.split()) for line in text.strip().split("\n")[1 : 1 + MERGES]]
    if len(pairs) < MERGES or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"CLIP's vocabulary has {MERGES} pairs, and here are {len(pairs)}: the file is cut or another")
    try:
        from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
        from tokenizers.models import BPE
    except ImportError:
        raise ImportError("CLIP's vocabulary is read by a library: pip install 'score-sde[text]'") from None
    tokens = byte_characters()
    tokens += [f"{token}</w>" for token in tokens]
    tokens += ["".join(pair) for pair in pairs] + [START, END]
    numbers = {token: number for number, token in enumerate(tokens)}
    merges: Any = pairs
    found = Tokenizer(BPE(numbers, merges, end_of_word_suffix="</w>", unk_token=END))
    found.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    found.post_processor = processors.TemplateProcessing(
        f"{START} $A {END}", special_tokens=[(START, numbers[START]), (END, numbers[END])]
    )
    return found.to_str()
