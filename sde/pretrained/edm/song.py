"""EDM's SongUNet, its DDPM++ and NCSN++, as our NCSN++."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sde.pretrained.edm.filters import check_taps, filters_of
from sde.pretrained.foreign import empty_network
from sde.pretrained.names.song import song_unet_names
from sde.pretrained.names.theirs import translate

SONG_OPTIONS = {
    "model_channels": "channels in units of which levels have theirs",
    "channel_mult": "channels of each level in units of model_channels",
    "channel_mult_emb": "width of the embedding in units of model_channels",
    "channel_mult_noise": "sines and cosines of the noise level in units of model_channels",
    "num_blocks": "residual blocks per level",
    "attn_resolutions": "resolutions with self-attention",
    "dropout": "probability with which features are dropped in training",
    "label_dropout": "probability with which an item was trained without its class",
    "augment_dim": "numbers that say how an image was augmented; 0 for none",
    "embedding_type": "embedding of the noise level: positional or fourier",
    "encoder_type": "SongUNet: standard, skip or residual input on the way down",
    "decoder_type": "SongUNet: standard or skip output on the way up",
    "resample_filter": "SongUNet: filter before halving and after doubling",
}

FREQUENCIES = "embedding.mapping.frequencies"
PROGRESSIVE = {"standard": "none", "skip": "skip", "residual": "residual"}


def song_unet(
    tensors: Mapping[str, Tensor], option: Callable[..., Any], learned_variance: bool
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The network of SongUNet's tensors and options, and its weights. Raises ValueError where they do not fit."""
    size, channels = option("img_resolution"), option("img_channels")
    multipliers = tuple(option("channel_mult", (1, 2, 2, 2)))
    sizes = [size >> level for level in range(len(multipliers))]
    network = {
        "name": "ncsnpp",
        "channels": option("model_channels", 128),
        "channel_mult": multipliers,
        "num_res_blocks": option("num_blocks", 4),
        "attention_resolutions": tuple(s for s in sizes if s in option("attn_resolutions", (16,))),
        "dropout": option("dropout", 0.1),
        "fir_kernel": tuple(option("resample_filter", (1, 1))),
        "progressive_input": PROGRESSIVE[option("encoder_type", "standard")],
        "progressive_output": PROGRESSIVE[option("decoder_type", "standard")],
        "embedding_type": option("embedding_type", "positional"),
        "embedding_mult": option("channel_mult_emb", 4),
        "features_mult": option("channel_mult_noise", 1),
        "augment_dim": option("augment_dim", 0),
        "learned_variance": learned_variance,
    }
    ours = empty_network(network, (channels, size, size), option("label_dim", 0) or None)
    check_taps(tensors, network["fir_kernel"])
    tables = {}
    if network["embedding_type"] == "positional":
        count = network["channels"] * network["features_mult"] // 2
        tables[FREQUENCIES] = (1 / 10_000) ** (torch.arange(count, dtype=torch.float32) / max(count - 1, 1))
    return network, translate(tensors, song_unet_names(ours, size), ours.state_dict(), filters_of(tensors), tables)
