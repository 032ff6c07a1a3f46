"""Peers: diffusers' network of the same size as one of ours, as its users have it. To be installed beside this project,
or among the wheels."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def absent() -> str | None:
    """Why diffusers cannot be had, in words; None where it can."""
    try:
        from diffusers import UNet2DModel  # noqa: F401
    except (ImportError, RuntimeError) as error:
        return f"diffusers cannot be imported ({str(error).strip().splitlines()[-1]}): what it would do is left out"
    return None


def unet(network: Mapping[str, Any], event_shape: tuple[int, ...]) -> nn.Module:
    """The UNet2DModel of a U-Net's options in a config: the same widths, attention and dropout."""
    from diffusers import UNet2DModel

    inputs, size, _ = event_shape
    levels = range(len(network["channel_mult"]))
    attended = [size >> level in network["attention_resolutions"] for level in levels]
    return UNet2DModel(
        sample_size=size,
        in_channels=inputs,
        out_channels=inputs,
        layers_per_block=network["num_res_blocks"],
        block_out_channels=[network["channels"] * multiplier for multiplier in network["channel_mult"]],
        down_block_types=["AttnDownBlock2D" if attended[level] else "DownBlock2D" for level in levels],
        up_block_types=["AttnUpBlock2D" if attended[level] else "UpBlock2D" for level in reversed(levels)],
        norm_num_groups=min(32, network["channels"]),
        dropout=network["dropout"],
    )


def passes(
    model: nn.Module, x: Tensor, precision: torch.dtype | None
) -> tuple[Callable[[], object], Callable[[], object]]:
    """A forward pass, and a training step as the documentation has it: noise prediction and AdamW, in float32 or under
    autocast."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def loss() -> Tensor:
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),), device=x.device)
        with torch.autocast(x.device.type, precision, enabled=precision is not None):
            output = model(x + noise, t).sample
        return nn.functional.mse_loss(output.float(), noise)

    @torch.no_grad()
    def forward() -> None:
        model.eval()
        loss()

    def train() -> None:
        model.train()
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return forward, train


def pipeline(model: nn.Module, scheduler: str, count: int, steps: int) -> Callable[[], object]:
    """Drawing ``count`` images in ``steps`` steps by the pipeline that takes a scheduler of this name, the network
    under bfloat16 autocast, as images in bfloat16 it cannot return."""
    import diffusers

    made = getattr(diffusers, scheduler)()
    kind = diffusers.DDIMPipeline if scheduler == "DDIMScheduler" else diffusers.DDPMPipeline
    drawing = kind(unet=model, scheduler=made)
    drawing.set_progress_bar_config(disable=True)
    device = next(model.parameters()).device.type

    def draw() -> None:
        with torch.autocast(device, torch.bfloat16):
            drawing(batch_size=count, num_inference_steps=steps, output_type="np")

    return draw
