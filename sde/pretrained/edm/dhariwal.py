"""EDM's DhariwalUNet, its ADM, as ours."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from sde.networks.adm import ADM
from sde.pretrained.edm.filters import check_taps, filters_of
from sde.pretrained.foreign import empty_network
from sde.pretrained.names.adm import dhariwal_names
from sde.pretrained.names.theirs import translate

FREQUENCIES = "encoder.embedding.mapping.frequencies"
HEAD_CHANNELS = 64
AVERAGE = (1, 1)
"""Its filters average and repeat."""


def dhariwal_unet(
    tensors: Mapping[str, Tensor], option: Callable[..., Any], learned_variance: bool
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The network of DhariwalUNet's tensors and options, and its weights. Raises ValueError where they do not fit."""
    size, channels = option("img_resolution"), option("img_channels")
    base, multipliers = option("model_channels", 192), tuple(option("channel_mult", (1, 2, 3, 4)))
    # Its heads have 64 channels, and where there are fewer there is no attention.
    wide = [size >> level for level, multiplier in enumerate(multipliers) if base * multiplier >= HEAD_CHANNELS]
    network = {
        "name": "adm",
        "channels": base,
        "channel_mult": multipliers,
        "num_res_blocks": option("num_blocks", 3),
        "attention_resolutions": tuple(s for s in wide if s in option("attn_resolutions", (32, 16, 8))),
        "dropout": option("dropout", 0.1),
        "head_channels": HEAD_CHANNELS,
        "embedding_mult": option("channel_mult_emb", 4),
        "middle_attention": size >> len(multipliers) - 1 in wide,
        "group_channels": 4,
        "augment_dim": option("augment_dim", 0),
        "learned_variance": learned_variance,
    }
    event_shape, num_classes = (channels, size, size), option("label_dim", 0) or None
    ours = cast(ADM, empty_network(network, event_shape, num_classes))
    check_taps(tensors, AVERAGE)
    count = base // 2
    tables = {FREQUENCIES: (1 / 10_000) ** (torch.arange(count, dtype=torch.float32) / count)}
    return network, translate(tensors, dhariwal_names(ours, size), ours.state_dict(), filters_of(tensors), tables)
