"""The tiny autoencoder: the names of its family's files, and what the published one of 32 channels gives back."""

import gzip
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sde.autoencoder import TinyAutoencoder
from sde.pretrained.tiny_autoencoder import load_tiny_autoencoder, read_tiny_autoencoder
from tests.oracles.foreign import SHARED

TAEF2 = SHARED / "weights" / "taef2-encoder.safetensors"
EMOJI = SHARED / "emoji32" / "emoji32.npz"
KEYS = SHARED / "keys" / "diffusers--taesd.json.gz"
OPTIONS = {"latent_channels": 5, "width": 8, "encoder_blocks": (1, 2), "decoder_blocks": (1, 3)}


def made(**options):
    torch.manual_seed(0)
    return TinyAutoencoder((3, 16, 12), **(OPTIONS | options)).eval()


def halves(model, half):
    return {name.removeprefix(f"{half}."): value for name, value in model.state_dict().items() if name.startswith(half)}


def in_diffusers(model):
    """The names there, where the soft clamp of the decoder has no place in the list."""
    found = {f"encoder.layers.{name}": value for name, value in halves(model, "encoder").items()}
    for name, value in halves(model, "decoder").items():
        place, _, rest = name.partition(".")
        found[f"decoder.layers.{int(place) - 1}.{rest}"] = value
    return found


@pytest.mark.parametrize("midblock_norm", [False, True])
@pytest.mark.parametrize("layout", ["two files", "folder", "one file", "diffusers"])
def test_files_of_every_layout(tmp_path, layout, midblock_norm):
    model = made(midblock_norm=midblock_norm)
    path = tmp_path / "my-encoder.safetensors"
    if layout in ("two files", "folder"):
        for half in ("encoder", "decoder"):
            save_file(halves(model, half), tmp_path / f"my-{half}.safetensors")
        path = tmp_path if layout == "folder" else path
    else:
        path = tmp_path / "weights.safetensors"
        state = {name: value for name, value in model.state_dict().items() if name != "noise_std"}
        save_file(in_diffusers(model) if layout == "diffusers" else state, path)
    options, _ = read_tiny_autoencoder(path)
    assert options == OPTIONS | {"midblock_norm": midblock_norm}
    again = load_tiny_autoencoder(path, (3, 16, 12))
    y = torch.rand(2, 3, 16, 12, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again(y)[0], model(y)[0])


def test_what_is_missing_is_named(tmp_path):
    model = made()
    save_file(halves(model, "encoder"), tmp_path / "encoder.safetensors")
    with pytest.raises(ValueError, match=r"encoder\.safetensors has no decoder of a tiny autoencoder"):
        load_tiny_autoencoder(tmp_path / "encoder.safetensors", (3, 16, 12))
    save_file(halves(model, "decoder"), tmp_path / "decoder.safetensors")
    with pytest.raises(ValueError, match="is of images of 3 channels, and the items have 1"):
        load_tiny_autoencoder(tmp_path, (1, 16, 12))
    other = halves(model, "decoder")
    del other["1.bias"]
    save_file(other, tmp_path / "decoder.safetensors")
    with pytest.raises(ValueError, match="is no tiny autoencoder"):
        load_tiny_autoencoder(tmp_path, (3, 16, 12))
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors holds conv\.weight: a tiny"):
        load_tiny_autoencoder(tmp_path / "other.safetensors", (3, 16, 12))
    with pytest.raises(ValueError, match="does not exist"):
        load_tiny_autoencoder(tmp_path / "nothing.safetensors", (3, 16, 12))


def test_a_pooled_block_by_hand():
    """x + pool(x) goes into the convolutions, whose sum with it is under the ReLU."""
    model = made(midblock_norm=True)
    block, x = model.decoder[3], torch.randn(1, 8, 4, 3, generator=torch.Generator().manual_seed(2))
    h = torch.einsum("oi,bihw->bohw", block.pool[0].weight[:, :, 0, 0], x).view(1, 4, 8, 4, 3)
    h = (h - h.mean((2, 3, 4), keepdim=True)) / (h.var((2, 3, 4), keepdim=True, correction=0) + 1e-5).sqrt()
    h = h.view(1, 32, 4, 3).relu()
    pooled = x + torch.einsum("oi,bihw->bohw", block.pool[3].weight[:, :, 0, 0], h)
    torch.testing.assert_close(block(x), (block.conv(pooled) + pooled).relu())
    z = torch.tensor([[[[-50.0, 0.3]]]])
    torch.testing.assert_close(model.decoder[0](z), torch.tensor([[[[-3.0, 3 * np.tanh(0.1)]]]], dtype=torch.float32))


@pytest.mark.skipif(not KEYS.exists(), reason="needs ../shared/data/keys, tensors of published checkpoints")
def test_taesd_has_the_names_and_shapes_of_diffusers():
    with gzip.open(KEYS) as file:
        theirs = {name: tuple(shape) for name, shape, _ in json.load(file)["tensors"]}
    ours = in_diffusers(TinyAutoencoder((3, 32, 32)))
    assert {name: tuple(value.shape) for name, value in ours.items()} == theirs


@pytest.mark.skipif(not (TAEF2.exists() and EMOJI.exists()), reason="needs ../shared/data: weights and emoji32")
def test_taef2_one_to_one():
    """Each tensor has its place, and emoji of 64 px come back at 27 dB, as its README says."""
    model = load_tiny_autoencoder(TAEF2, (3, 64, 64))
    for half in ("encoder", "decoder"):
        held = load_file(TAEF2.with_name(f"taef2-{half}.safetensors"))
        ours = halves(model, half)
        assert held.keys() == ours.keys()
        assert all(torch.equal(held[name].float(), ours[name]) for name in held)
    assert model.latent_shape == (32, 8, 8)
    images = torch.from_numpy(np.load(EMOJI)["images"][::200]).permute(0, 3, 1, 2) / 255
    y = torch.nn.functional.interpolate(images, scale_factor=2.0, mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        error = (model(y)[0].clamp(0, 1) - y).square().mean().item()
    assert 26 < -10 * np.log10(error) < 40
