"""Token vectors: exact rows, the mean of wordllama, null rows, and encoders that are stored with their tokenizer."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sde.condition.text import TEXT_ENCODERS, build_text
from sde.condition.text.token_vectors import TokenVectors, packed, unpacked
from sde.condition.text.tokenizer import Characters
from sde.condition.text.vectors_file import read_vectors
from tests.oracles import simulated_device as sim
from tests.oracles.foreign import SHARED

TABLE = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])


def encoder(**options):
    return TokenVectors(Characters("abc"), options.pop("table", TABLE), options.pop("max_tokens", 4), **options)


def test_rows_are_the_vectors_of_the_tokens_and_nan_behind_them():
    found = encoder()(["cab", "a", "abcab"])
    nan = torch.full((2,), torch.nan)
    expected = torch.stack([
        torch.stack([TABLE[2], TABLE[0], TABLE[1], nan]),
        torch.stack([TABLE[0], nan, nan, nan]),
        torch.stack([TABLE[0], TABLE[1], TABLE[2], TABLE[0]]),
    ])  # fmt: skip
    torch.testing.assert_close(found["sequence"], expected, rtol=0, atol=0, equal_nan=True)
    means = torch.tensor([[4 / 3, 2.0], [1.0, 0.0], [5 / 4, 6 / 4]])
    torch.testing.assert_close(found["vector"], means / means.norm(dim=1, keepdim=True))


def test_without_vectors_tokens_are_one_hot():
    found = encoder(table=None)(["ba"])["sequence"][0]
    torch.testing.assert_close(found[:2], torch.eye(3)[[1, 0]], rtol=0, atol=0)
    assert found[2:].isnan().all()


def test_the_empty_prompt_is_null():
    model = encoder()
    found = model(["", "zz"])
    for kind, null in model.null.items():
        assert null.shape == (1, *model.shapes[kind])
        torch.testing.assert_close(found[kind], null.expand_as(found[kind]), equal_nan=True)


def test_a_row_does_not_depend_on_the_others():
    model = encoder()
    many = model(["cab", "a", "", "abcabc"])
    for row, text in enumerate(["cab", "a", "", "abcabc"]):
        for kind, alone in model([text]).items():
            assert torch.equal(alone[0].nan_to_num(9), many[kind][row].nan_to_num(9))


@pytest.mark.parametrize("outputs", [("sequence",), ("vector",), ("vector", "sequence")])
def test_outputs_choose_what_there_is(outputs):
    model = encoder(outputs=outputs)
    found = model(["ab"])
    assert {*found} == {*model.shapes} == {*outputs}
    assert {kind: tuple(c.shape[1:]) for kind, c in found.items()} == model.shapes


@pytest.mark.parametrize(("options", "sentence"), [
    ({"outputs": ()}, r"outputs = \(\): needs sequence or vector, or both"),
    ({"outputs": ("tokens",)}, "needs sequence or vector, or both"),
    ({"max_tokens": 0}, "max_tokens = 0: needs at least 1"),
    ({"table": torch.zeros(2, 5)}, r"have shape \(2, 5\) .* needs floats of shape \(3, width\)"),
    ({"table": torch.zeros(3, 5, dtype=torch.long)}, "type torch.int64: needs floats"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        encoder(**options)


def test_large_vocabularies_need_vectors():
    with pytest.raises(ValueError, match=r"has 2,000 tokens, .* needs from 1 to 1,024 tokens, or a file of vectors"):
        TokenVectors(Characters("".join(chr(1000 + i) for i in range(2000))), None, 4)
    with pytest.raises(ValueError, match="has 0 tokens"):
        TokenVectors(Characters(""), None, 4)


def test_texts_are_packed_the_same_whenever_that_is():
    assert unpacked(packed("naïve 🙂")) == "naïve 🙂"
    assert torch.equal(packed("a" * 1000), packed("a" * 1000))


def stored(model):
    """An encoder as a model's file has it."""
    again = build_text(model.describe())
    again.load_state_dict(model.state_dict())
    return again


@pytest.mark.parametrize("table", [None, TABLE, TABLE.half()], ids=["one-hot", "float32", "float16"])
def test_an_encoder_of_characters_is_stored(table):
    model = encoder(table=table)
    for kind, c in stored(model)(["cab", ""]).items():
        assert torch.equal(c.nan_to_num(9), model(["cab", ""])[kind].nan_to_num(9)), kind


@pytest.mark.skipif(not sim.available, reason="this torch has no interface for devices written in Python")
def test_vectors_on_a_device_give_rows_there():
    model = encoder().to(sim.NAME)
    for kind, c in model(["cab", "", "b"]).items():
        assert c.device.type == sim.NAME
        torch.testing.assert_close(c.cpu(), encoder()(["cab", "", "b"])[kind], equal_nan=True)


def test_max_tokens_is_by_default_that_of_the_longest_text(tmp_path):
    read = TEXT_ENCODERS["token_vectors"]
    assert read(["ab", "abcd", "a"]).max_tokens == 4
    assert read(["ab", "abcd", "a"], max_tokens=3).max_tokens == 3
    np.save(tmp_path / "v.npy", np.eye(4))
    assert read(["ab", "abcd"], vectors=str(tmp_path / "v.npy"))(["d"])["sequence"][0, 0].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_files_of_vectors(tmp_path, suffix):
    path = tmp_path / f"vectors{suffix}"
    if suffix == ".safetensors":
        save_file({"embedding.weight": TABLE.half()}, path)
    else:
        (np.save if suffix == ".npy" else np.savez)(path, TABLE.double().numpy())
    found = read_vectors(str(path))
    assert found.dtype == (torch.float16 if suffix == ".safetensors" else torch.float32)
    torch.testing.assert_close(found.float(), TABLE)


def test_other_files_of_vectors_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"vectors = .* does not exist"):
        read_vectors(str(tmp_path / "none.npy"))
    for name, content, sentence in (
        ("words.npy", b"words", "is not a readable"),
        ("words.safetensors", b"words", "is not a readable"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            read_vectors(str(tmp_path / name))
    np.savez(tmp_path / "two.npz", a=np.eye(2), b=np.eye(3))
    with pytest.raises(ValueError, match=r"holds a \(2, 2\), b \(3, 3\): needs one table"):
        read_vectors(str(tmp_path / "two.npz"))
    np.save(tmp_path / "inf.npy", np.full((2, 2), np.inf))
    with pytest.raises(ValueError, match="not finite"):
        read_vectors(str(tmp_path / "inf.npy"))


def test_wordllama_knows_that_a_puppy_is_like_a_dog():
    pytest.importorskip("tokenizers", reason="the extra text is not installed")
    files = SHARED / "weights/wordllama-tokenizer.json.gz", SHARED / "weights/wordllama-64.safetensors"
    if not all(path.exists() for path in files):
        pytest.skip("the shared data have no wordllama")
    tokenizer, vectors = map(str, files)
    model = TEXT_ENCODERS["token_vectors"](["a red heart"], tokenizer=tokenizer, vectors=vectors)
    table, ids = read_vectors(vectors).float(), model.tokenizer("a dog").ids
    puppy, dog, train = model(["a small puppy", "dog", "railway station"])["vector"]
    mean = table[ids].mean(0)
    torch.testing.assert_close(model(["a dog"])["vector"][0], mean / mean.norm())
    assert puppy @ dog > puppy @ train + 0.3
    again = stored(model)
    assert again._tokenizer is None, "it is read when it is asked for"
    assert torch.equal(again(["dog"])["vector"], dog[None])
    again.load_state_dict(model.state_dict())
    assert again._tokenizer is None, "the state that was loaded says what it is"
    assert model.notes(["a red heart and more"])[0].endswith("'and more' is left out")


def test_an_encoder_of_something_else_is_not_built():
    with pytest.raises(ValueError, match="the text encoder of a pipeline is a part of it"):
        build_text({"name": "pipeline", "kind": "CLIPText"})
