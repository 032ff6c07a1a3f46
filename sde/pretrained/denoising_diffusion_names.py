"""The tensors of the linear-attention U-Net as denoising-diffusion-pytorch names them."""

from torch import nn

from sde.networks.linear_attention import AttendedBlock, ModulatedBlock, RMSNorm
from sde.networks.linear_attention_unet import LinearAttentionUNet
from sde.pretrained.adm_names import Names, layer
from sde.pretrained.names import Theirs


def unet_names(network: LinearAttentionUNet) -> Names:
    """The tensors of its Unet, by ours."""
    mapping = network.embedding.mapping
    found = {
        **layer("embedding.mapping.layers.0", "time_mlp.1"),
        **layer("embedding.mapping.layers.2", "time_mlp.3"),
        **layer("stem", "init_conv"),
        **layer("head", "final_conv"),
        **_block("last", "final_res_block", network.last),
        **_block("middle.0.block", "mid_block1", network.middle[0].block),
        **_attention("middle.0.attention", "mid_attn", network.middle[0].attention),
        **_block("middle.1", "mid_block2", network.middle[1]),
    }
    if mapping.fourier:
        found["embedding.mapping.frequencies"] = Theirs("time_mlp.0.weights")
    for way in ("downs", "ups"):
        levels = getattr(network, way)
        for index, level in enumerate(levels):
            here, there = f"{way}.{index}", f"{way}.{index}"
            second: AttendedBlock = level["second"]
            found |= _block(f"{here}.first", f"{there}.0", level["first"])
            found |= _block(f"{here}.second.block", f"{there}.1", second.block)
            found |= _attention(f"{here}.second.attention", f"{there}.2", second.attention)
            # Between levels a layer without weights stands before the convolution.
            last = index == len(levels) - 1
            found |= layer(f"{here}.resample", f"{there}.3" if last else f"{there}.3.1")
    return found


def _norm(here: str, there: str, module: RMSNorm, dims: int) -> Names:
    shape = (1, len(module.scale), *[1] * dims)
    return {f"{here}.scale": Theirs(f"{there}.g", lambda x: x.flatten(), lambda x: x.reshape(shape))}


def _block(here: str, there: str, module: ModulatedBlock) -> Names:
    found = layer(f"{here}.modulation", f"{there}.mlp.1") | layer(f"{here}.skip", f"{there}.res_conv")
    for part, norm in ((1, module.norm1), (2, module.norm2)):
        found |= layer(f"{here}.conv{part}", f"{there}.block{part}.proj")
        found |= _norm(f"{here}.norm{part}", f"{there}.block{part}.norm", norm, module.conv1.weight.ndim - 2)
    return found


def _attention(here: str, there: str, module: nn.Module) -> Names:
    linear, dims = hasattr(module, "out_norm"), module.qkv.weight.ndim - 2
    found = {f"{here}.memory": Theirs(f"{there}.mem_kv"), f"{here}.qkv.weight": Theirs(f"{there}.to_qkv.weight")}
    found |= layer(f"{here}.out", f"{there}.to_out.0" if linear else f"{there}.to_out")
    found |= _norm(f"{here}.norm", f"{there}.norm", module.norm, dims)
    return found | (_norm(f"{here}.out_norm", f"{there}.to_out.1", module.out_norm, dims) if linear else {})
