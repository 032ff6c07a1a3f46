"""Tokenizers: CLIP's published numbers, files of the library, characters, and what they refuse."""

import gzip
import json

import pytest

from sde.condition.text.clip_vocabulary import byte_characters
from sde.condition.text.token_vectors import notes_of
from sde.condition.text.tokenizer import Characters, read_tokenizer, word_at
from tests.oracles.foreign import SHARED

CLIP, LLAMA = SHARED / "tokenizer/bpe_simple_vocab_16e6.txt.gz", SHARED / "weights/wordllama-tokenizer.json.gz"


def shared(path):
    pytest.importorskip("tokenizers", reason="the extra text is not installed")
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return read_tokenizer(str(path), [])


@pytest.mark.parametrize(("text", "ids"), [
    ("hello world!", [3306, 1002, 256]),
    ("  Hello\n WORLD!", [3306, 1002, 256]),
    ("a diagram", [320, 22697]),
    ("a photo of a cat", [320, 1125, 539, 320, 2368]),
    ("a dog", [320, 1929]),
    ("", []),
])  # fmt: skip
def test_clip_numbers_are_the_published_ones(text, ids):
    assert shared(CLIP)(text).ids == ids


def test_clip_vocabulary_has_its_size_and_spells_any_byte():
    tokenizer = shared(CLIP)
    assert tokenizer.size == 49408
    # A character of its own for each byte: nothing is unknown.
    found = tokenizer("🙂 naïve ŋ")
    assert found.ids
    assert not found.unknown
    library = tokenizer._library
    assert library.encode("a diagram").ids == [49406, 320, 22697, 49407]
    words = [library.id_to_token(i) for i in tokenizer("it's 12 cats").ids]
    assert words == ["it</w>", "'s</w>", "1</w>", "2</w>", "cats</w>"]


def test_bytes_have_each_a_character_that_can_be_seen():
    characters = byte_characters()
    assert len({*characters}) == 256
    assert characters[:3] == ["!", '"', "#"]
    assert all(c.isprintable() and not c.isspace() for c in characters if ord(c) < 256)


def test_a_file_of_the_library_is_read_gzipped_or_not(tmp_path):
    tokenizer = shared(LLAMA)
    assert tokenizer.size == 32000
    assert tokenizer("a red heart").ids == [263, 2654, 5192]
    plain = tmp_path / "tokenizer.json"
    plain.write_bytes(gzip.decompress(LLAMA.read_bytes()))
    assert read_tokenizer(str(plain), [])("a red heart") == tokenizer("a red heart")


def test_words_that_are_spelled_byte_by_byte_are_unknown():
    assert shared(LLAMA)("a red 🙂heart").unknown == ["🙂heart"]


def test_words_in_place_of_which_there_is_the_unknown_token_are_unknown(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="the extra text is not installed")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0, "red": 1, "heart": 2}, unk_token="?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    # What a file says of truncation and padding is for others.
    words.enable_truncation(2)
    words.enable_padding(length=8)
    path = tmp_path / "words.json"
    words.save(str(path))
    found = read_tokenizer(str(path), [])("red blue heart green blue")
    assert found.ids == [1, 0, 2, 0, 0]
    assert found.starts == [0, 4, 9, 15, 21]
    assert found.unknown == ["blue", "green"]


def test_what_unigram_does_not_know_is_unknown(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="the extra text is not installed")
    pieces = [("a", -1.0), ("<unk>", 0.0), ("\u2581", -1.0), ("red", -1.0)]
    words = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=1))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    path = tmp_path / "unigram.json"
    words.save(str(path))
    assert read_tokenizer(str(path), [])("a blue red").unknown == ["blue"]


def test_characters_are_numbered_by_their_code_points():
    tokenizer = read_tokenizer("characters", ["cab", "b a"])
    assert tokenizer.alphabet == " abc"
    assert tokenizer.size == 4
    assert tokenizer("abxcy!x") == ([1, 2, 3], [0, 1, 3], ["x", "y", "!"])


@pytest.mark.parametrize(("place", "word"), [(0, "two"), (2, "two"), (3, "words"), (4, "words"), (9, "")])
def test_the_word_at_a_place(place, word):
    assert word_at("two words ", place) == word


def test_notes_name_what_is_not_seen():
    tokens = Characters("abcd ")("ab zcd q")
    unknown, cut = notes_of("ab zcd q", tokens, 4)
    assert unknown == "the tokenizer does not know 'z', 'q' in the prompt 'ab zcd q'"
    assert cut == "the prompt 'ab zcd q' has 6 tokens, of which the model is told 4: 'd q' is left out"
    assert notes_of("ab", Characters("ab")("ab"), 2) == []
    long = "a" * 200
    assert len(notes_of(long, Characters("a")(long), 1)[0]) < 260


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer = 'nowhere.json' does not exist .* needs characters, a JSON file"):
        read_tokenizer("nowhere.json", [])
    path = tmp_path / "words.txt"
    for content, sentence in (
        (b"red\nheart\n", "begins with 'red"),
        (b"\xff\xfe\x00", "neither text in UTF-8 nor a whole gzip"),
        (gzip.compress(b"{}" * 100)[:20], "neither text in UTF-8 nor a whole gzip"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            read_tokenizer(str(path), [])
    pytest.importorskip("tokenizers", reason="the extra text is not installed")
    path.write_text(json.dumps({"model": {"type": "none"}}))
    with pytest.raises(ValueError, match=r"tokenizer = .* no JSON of the tokenizers library"):
        read_tokenizer(str(path), [])
    path.write_text("#version: 0.2\ni n\nt h\n")
    with pytest.raises(ValueError, match="CLIP's vocabulary has 48894 pairs, and here are 2"):
        read_tokenizer(str(path), [])


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'score-sde\[text\]'"):
        read_tokenizer(str(path), [])
