"""Frozen text encoders of transformers: on tiny random weights, what the library itself returns."""

import pytest
import torch

from sde.condition.text import TEXT_ENCODERS, build_text
from sde.condition.text.tokenizer import read_tokenizer
from tests.oracles.foreign import SHARED

transformers = pytest.importorskip("transformers", reason="the extra latent is not installed")

TEXTS = ["a red heart", "", "a photo of a cat"]


def fast(name, **special):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    library = read_tokenizer(str(path), [])._library
    return transformers.PreTrainedTokenizerFast(tokenizer_object=library, **special)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    end = "<|endoftext|>"
    clip = {"vocab_size": 49408, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 16, "projection_dim": 6, "eos_token_id": 49407,
            "bos_token_id": 49406}  # fmt: skip
    words = fast("tokenizer/bpe_simple_vocab_16e6.txt.gz", bos_token="<|startoftext|>", eos_token=end, pad_token=end,
                 unk_token=end, model_max_length=16)  # fmt: skip
    config = transformers.CLIPTextConfig(**clip)
    for name, kind in (("clip", transformers.CLIPTextModel), ("projected", transformers.CLIPTextModelWithProjection)):
        kind(config).save_pretrained(base / name)
        words.save_pretrained(base / name)
    t5 = transformers.T5Config(vocab_size=32000, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2)
    transformers.T5EncoderModel(t5).save_pretrained(base / "pipeline/text_encoder")
    # The limit of T5's tokenizers is none of its encoder, whose positions are relative.
    fast(
        "weights/wordllama-tokenizer.json.gz", eos_token="</s>", pad_token="</s>", unk_token="<unk>",
        model_max_length=512,
    ).save_pretrained(base / "pipeline/tokenizer")  # fmt: skip
    # Of its positions two are for no token.
    roberta = {"vocab_size": 49408, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
               "num_attention_heads": 2, "max_position_embeddings": 18, "pad_token_id": 1}  # fmt: skip
    transformers.RobertaModel(transformers.RobertaConfig(**roberta)).save_pretrained(base / "roberta")
    words.save_pretrained(base / "roberta")
    return base


def test_all_that_a_tokenizer_gives_has_a_position(folders):
    encoder = TEXT_ENCODERS["transformers"](TEXTS, folder=str(folders / "roberta"))
    assert encoder.max_tokens == 16
    assert not encoder(["cat " * 30])["sequence"].isnan().any()


@pytest.mark.parametrize(("name", "kind", "pooled"), [
    ("clip", "CLIPTextModel", "pooler_output"),
    ("projected", "CLIPTextModelWithProjection", "text_embeds"),
    ("pipeline", "T5EncoderModel", None),
])  # fmt: skip
def test_states_are_those_of_the_library(folders, name, kind, pooled):
    encoder = TEXT_ENCODERS["transformers"](TEXTS, folder=str(folders / name))
    found = encoder(TEXTS)
    inner = folders / name / ("text_encoder" if name == "pipeline" else "")
    model = getattr(transformers, kind).from_pretrained(inner).eval()
    words = transformers.AutoTokenizer.from_pretrained(folders / name / ("tokenizer" if name == "pipeline" else ""))
    for row, text in enumerate(TEXTS):
        ids = words(text, return_tensors="pt")["input_ids"]
        count = ids.shape[1]
        if not text:
            assert found["sequence"][row].isnan().all()
            assert found["vector"][row].isnan().all()
            continue
        with torch.no_grad():
            # Without any padding.
            own = model(input_ids=ids)
        torch.testing.assert_close(found["sequence"][row, :count], own.last_hidden_state[0], rtol=1e-4, atol=1e-5)
        assert found["sequence"][row, count:].isnan().all()
        vector = own.last_hidden_state[0].mean(0) if pooled is None else own[pooled][0]
        torch.testing.assert_close(found["vector"][row], vector, rtol=1e-4, atol=1e-5)
    assert {k: tuple(c.shape[1:]) for k, c in found.items()} == encoder.shapes
    assert encoder.max_tokens == (16 if name != "pipeline" else len(words(TEXTS[2])["input_ids"]))


def test_weights_stay_in_their_folder(folders):
    encoder = TEXT_ENCODERS["transformers"](TEXTS, folder=str(folders / "clip"), outputs=("vector",))
    assert not encoder.state_dict()
    assert not [*encoder.parameters()]
    again = build_text(encoder.describe())
    assert again._held is None, "nothing is read before it is asked for"
    assert torch.equal(again(TEXTS[:1])["vector"], encoder(TEXTS[:1])["vector"])
    assert again.double().to("cpu")(["a"])["vector"].dtype == torch.float32


def test_truncated_and_unknown_words_are_named(folders):
    clip = TEXT_ENCODERS["transformers"](TEXTS, folder=str(folders / "clip"))
    (note,) = clip.notes(["cat " * 15 + "dog", "a cat"])
    assert "has 16 tokens, of which the model is told 14: 'cat dog' is left out" in note


def test_other_folders_and_weights_are_refused(folders, tmp_path):
    for folder in ("", str(tmp_path)):
        with pytest.raises(ValueError, match=r"needs a folder with the config.json, the weights and the tokenizer"):
            TEXT_ENCODERS["transformers"](TEXTS, folder=folder)
    (tmp_path / "config.json").write_text('{"model_type": "clip_text_model"}')
    with pytest.raises(ValueError, match="holds no text encoder that transformers reads"):
        TEXT_ENCODERS["transformers"](TEXTS, folder=str(tmp_path))
    encoder = TEXT_ENCODERS["transformers"](TEXTS, folder=str(folders / "clip"))
    described = encoder.describe() | {"digest": "0" * 64}
    with pytest.raises(ValueError, match="holds other weights than the model was trained with"):
        build_text(described)(["a"])
    with pytest.raises(ValueError, match="does not exist any more"):
        build_text(described | {"folder": str(tmp_path / "gone")})(["a"])
