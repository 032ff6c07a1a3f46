"""Text encoders of pipelines, and the autoencoder's factors."""

import pytest
import torch

from sde.pretrained.pipelines.autoencoder import factor_of
from tests.oracles import pipelines
from tests.sde.pretrained.pipelines.drawing import PROMPTS, assert_alike, drawn_from_noise, guided, loaded, noise

pytest.importorskip("diffusers", reason="the extra latent is not installed")
pytest.importorskip("transformers", reason="the extra latent is not installed")


@pytest.fixture(scope="module")
def pipeline():
    return pipelines.stable_diffusion()


def test_a_prompt_that_is_cut_is_named(pipeline):
    """What is not seen of it changes nothing, and what is seen does."""
    text = loaded(pipeline).model.text
    longer = "a " * 80 + "dog"
    (note,) = text.notes(["cat", longer])
    assert "has 83 tokens, of which the model is told 75: " in note
    assert note.endswith("'a a a a a dog' is left out")
    assert torch.equal(text([longer])["sequence"], text(["a " * 80])["sequence"])
    assert not text.notes(["cat", "a " * 75])
    assert text.notes(["a " * 76])


def test_a_word_that_t5_does_not_know_is_named():
    (note,) = loaded(pipelines.pixart()).model.text.notes(["a cat!"])
    assert note == "the tokenizer does not know 'cat!' in the prompt 'a cat!'"


def test_a_prompt_that_two_encoders_cut_is_named_once():
    text = loaded(pipelines.sdxl()).model.text
    assert len(text.notes(["a " * 80])) == 1


@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip(skip, pipeline):
    """The last normalization of the states before a layer; what stands for no text has all layers."""
    whole, skipped = loaded(pipeline).model.text, loaded(pipeline, clip_skip=skip).model.text
    encoder = pipeline.text_encoder
    tokens = pipeline.tokenizer(PROMPTS, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        # The layers behind it do nothing.
        layers = encoder.encoder.layers
        encoder.encoder.layers = layers[: len(layers) - skip]
        try:
            wanted = encoder(tokens).last_hidden_state
        finally:
            encoder.encoder.layers = layers
    torch.testing.assert_close(skipped(PROMPTS)["sequence"], wanted)
    torch.testing.assert_close(skipped.null["sequence"], whole.null["sequence"])
    torch.testing.assert_close(skipped.negative(PROMPTS)["sequence"], whole(PROMPTS)["sequence"])
    with pytest.raises(ValueError, match="clip_skip = 4: needs a whole number from 0 to 3"):
        loaded(pipeline, clip_skip=4)


def test_attention_mask(pipeline):
    """Where the encoder's config asks for it, what fills up a text is not attended to."""
    pipeline.text_encoder.config.use_attention_mask = True
    try:
        found = loaded(pipeline)
        call = {"prompt": PROMPTS, "num_inference_steps": 4, "guidance_scale": 4.0}
        ours = drawn_from_noise(guided(found.model, scale=4.0), "ddim", noise(), found.steps(4))
        assert_alike(ours, pipelines.pictures(pipeline, latents=noise(), **call))
        masked = found.model.text(PROMPTS)["sequence"]
    finally:
        pipeline.text_encoder.config.use_attention_mask = False
    assert (masked - loaded(pipeline).model.text(PROMPTS)["sequence"]).abs().max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"shift_factor": 0.3, "scaling_factor": 1.5},
                                     {"latents_mean": (0.1, -0.2, 0.3, 0.4), "latents_std": (1.5, 0.5, 2.0, 0.8)}],
                         ids=str)  # fmt: skip
def test_factors_of_the_autoencoder(options):
    """Latents z are (z - shift) scaling, or of each channel (z - mean) scaling / std: from the config."""
    autoencoder = pipelines.autoencoder(**options)
    transform = loaded(pipelines.sdxl(vae=autoencoder)).model.transform
    x = 255 * torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = autoencoder.encode((x + 0.5 - 128) / 127.5).latent_dist.mean
        config = autoencoder.config
        column = {name: torch.tensor(config[name] or (0.0,) * 4).view(1, 4, 1, 1) for name in ("latents_mean",)}
        std = torch.tensor(config.latents_std or (1.0,) * 4).view(1, 4, 1, 1)
        shift = config.shift_factor or 0.0
        wanted = (z - (column["latents_mean"] if config.latents_mean else shift)) * config.scaling_factor / std
        torch.testing.assert_close(transform.encode(x + 0.5), wanted, rtol=1e-5, atol=1e-5)
        pictures = autoencoder.decode(z).sample * 127.5 + 128
        torch.testing.assert_close(transform.decode(wanted), pictures, rtol=1e-4, atol=1e-3)


def test_the_mean_of_the_posterior_is_encoded():
    """Pipelines draw from it; its width is the standard deviation that the transform knows."""
    autoencoder = pipelines.autoencoder()
    with torch.no_grad():
        autoencoder.quant_conv.bias[4:] = 0
    transform = loaded(pipelines.stable_diffusion(vae=autoencoder)).model.transform
    with torch.no_grad():
        mean, std = transform.posterior(torch.full((1, 3, 16, 16), 99.5))
    torch.testing.assert_close(std, torch.full_like(mean, autoencoder.config.scaling_factor))
    assert torch.equal(mean, transform.encode(torch.full((1, 3, 16, 16), 99.5)))


def test_latents_are_as_coarse_as_the_levels_of_any_autoencoder():
    for names in ("block_out_channels", "encoder_block_out_channels", "down_block_out_channels"):
        assert factor_of({names: [4, 8, 8]}) == 4


def test_an_autoencoder_without_a_posterior():
    """AutoencoderTiny's latents are what it says."""
    import diffusers

    torch.manual_seed(11)
    tiny = pipelines.lively(
        diffusers.AutoencoderTiny(encoder_block_out_channels=(4, 4), decoder_block_out_channels=(4, 4),
                                  num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))
    )  # fmt: skip
    pipeline = pipelines.stable_diffusion(vae=tiny)
    found = loaded(pipeline)
    call = {"prompt": PROMPTS, "num_inference_steps": 4, "guidance_scale": 4.0}
    ours = drawn_from_noise(guided(found.model, scale=4.0), "ddim", noise(), found.steps(4))
    torch.testing.assert_close(ours, pipelines.pictures(pipeline, latents=noise(), **call), rtol=0, atol=1e-4)
    _, std = found.model.transform.posterior(torch.zeros(1, 3, 16, 16))
    assert not std.any()
