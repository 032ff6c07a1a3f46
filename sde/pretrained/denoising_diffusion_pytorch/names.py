"""The tensors of the linear-attention U-Net as denoising-diffusion-pytorch names them."""

from typing import cast

from torch import nn

from sde.networks.linear_attention import (
    AttendedBlock,
    ChannelRMSNorm,
    LinearAttention,
    MemoryAttention,
    ModulatedBlock,
)
from sde.networks.linear_attention_unet import LinearAttentionUNet, NoiseFeatures
from sde.pretrained.names.theirs import Names, Theirs, layer


def unet_names(network: LinearAttentionUNet) -> Names:
    """The tensors of its Unet, by ours."""
    mapping, middle = cast(NoiseFeatures, network.embedding.mapping), cast(AttendedBlock, network.middle[0])
    found = {
        **layer("embedding.mapping.layers.0", "time_mlp.1"),
        **layer("embedding.mapping.layers.2", "time_mlp.3"),
        **layer("stem", "init_conv"),
        **layer("head", "final_conv"),
        **_block("last", "final_res_block", network.last),
        **_block("middle.0.block", "mid_block1", middle.block),
        **_attention("middle.0.attention", "mid_attn", middle.attention),
        **_block("middle.1", "mid_block2", cast(ModulatedBlock, network.middle[1])),
    }
    if mapping.fourier:
        found["embedding.mapping.frequencies"] = Theirs("time_mlp.0.weights")
    for way, levels in (("downs", network.downs), ("ups", network.ups)):
        for index, level in enumerate(levels):
            here = f"{way}.{index}"
            first, attended = (module for name, module in cast(nn.ModuleDict, level).items() if name != "resample")
            second = cast(AttendedBlock, attended)
            found |= _block(f"{here}.first", f"{here}.0", cast(ModulatedBlock, first))
            found |= _block(f"{here}.second.block", f"{here}.1", second.block)
            found |= _attention(f"{here}.second.attention", f"{here}.2", second.attention)
            # Between levels a layer without weights stands before the convolution.
            last = index == len(levels) - 1
            found |= layer(f"{here}.resample", f"{here}.3" if last else f"{here}.3.1")
    return found


def _norm(here: str, there: str, module: ChannelRMSNorm, dims: int) -> Names:
    shape = (1, len(module.scale), *[1] * dims)
    return {f"{here}.scale": Theirs(f"{there}.g", lambda x: x.flatten(), lambda x: x.reshape(shape))}


def _block(here: str, there: str, module: ModulatedBlock) -> Names:
    found = layer(f"{here}.modulation", f"{there}.mlp.1") | layer(f"{here}.skip", f"{there}.res_conv")
    for part, norm in ((1, module.norm1), (2, module.norm2)):
        found |= layer(f"{here}.conv{part}", f"{there}.block{part}.proj")
        found |= _norm(
            f"{here}.norm{part}", f"{there}.block{part}.norm", cast(ChannelRMSNorm, norm), module.conv1.weight.ndim - 2
        )
    return found


def _attention(here: str, there: str, module: LinearAttention | MemoryAttention) -> Names:
    dims = module.qkv.weight.ndim - 2
    found = {f"{here}.memory": Theirs(f"{there}.mem_kv"), f"{here}.qkv.weight": Theirs(f"{there}.to_qkv.weight")}
    found |= _norm(f"{here}.norm", f"{there}.norm", module.norm, dims)
    if isinstance(module, MemoryAttention):
        return found | layer(f"{here}.out", f"{there}.to_out")
    return (
        found
        | layer(f"{here}.out", f"{there}.to_out.0")
        | _norm(f"{here}.out_norm", f"{there}.to_out.1", module.out_norm, dims)
    )
