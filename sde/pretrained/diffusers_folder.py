"""diffusers' folders, written: of its own networks, wrapped, and of our DDPM, which is its UNet2DModel."""

from pathlib import Path
from typing import Any

from torch import Tensor

from sde.model.denoiser import Denoiser
from sde.model.noise_input import NoiseInput
from sde.networks.diffusers_network import DiffusersNetwork, diffusers_library
from sde.networks.ncsnpp import NCSNpp
from sde.pretrained.diffusers_scheduler import PREDICTIONS, SCHEDULES
from sde.process.chain import ChainSDE
from sde.process.flow import FlowSDE

DDPM: dict[str, Any] = {
    "attention_resolutions": (), "resampling": "conv", "resample_blocks": False, "resample_conv": True,
    "progressive_input": "none", "progressive_output": "none", "embedding_type": "positional", "embedding_mult": 4,
    "features_mult": 1, "adaptive": False, "skip_rescale": False, "group_channels": 1, "augment_dim": 0,
    "centered": True, "learned_variance": False, "scale_by_sigma": False,
}  # fmt: skip
"""Options of NCSNpp with which it is a UNet2DModel. Its attention on the way up comes after every block, ours after the
last: with attention in the middle alone they are one."""


def write_diffusers(model: Denoiser, folder: Path) -> list[Path]:
    """Write ``unet`` (or ``transformer``) and ``scheduler``, for ``DDPMScheduler``, on the path of flow matching for
    ``FlowMatchEulerDiscreteScheduler``, and the network's own class. Raises ValueError for networks, processes,
    parametrizations and noise inputs that diffusers does not have."""
    kind, scheduler = _scheduler(model)
    if isinstance(model.network, DiffusersNetwork):
        network = model.network.model
    elif isinstance(model.network, NCSNpp):
        network = _unet(model, model.network)
    else:
        raise ValueError(
            f"diffusers has no network like {type(model.network).__name__}: its own, and ncsnpp in its DDPM form go out"
        )
    part = "transformer" if type(network).__name__.startswith("DiT") else "unet"
    network.save_pretrained(folder / part)
    getattr(diffusers_library(), kind)(**scheduler).save_pretrained(folder / "scheduler")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _scheduler(model: Denoiser) -> tuple[str, dict[str, Any]]:
    """The class of a scheduler, and its options."""
    process = model.sde
    if not isinstance(process, ChainSDE | FlowSDE):
        raise ValueError(
            f"diffusers has chains and flow matching, and this process is {type(process).__name__}: train on a chain, "
            "or on flow"
        )
    known = {"flow_prediction": "flow"} if isinstance(process, FlowSDE) else PREDICTIONS
    predicted = next((name for name, ours in known.items() if ours == model.parametrization), None)
    if predicted is None:
        raise ValueError(
            f"diffusers has the parametrizations {', '.join(known.values())} there, this model {model.parametrization}"
        )
    if model.scaled_input:
        raise ValueError("diffusers' networks see x as it is, this one c_in x: train it with `noise_input` = step")
    if isinstance(process, FlowSDE):
        return "FlowMatchEulerDiscreteScheduler", _flow(process, model.noise_input)
    return "DDPMScheduler", _chain(process, model.noise_input, predicted)


def _flow(process: FlowSDE, told: NoiseInput) -> dict[str, Any]:
    steps = told.scale
    if told.of != "time" or steps < 1 or not steps.is_integer() or told.shift or not isinstance(told.process, FlowSDE):
        raise ValueError(f"diffusers' networks are told a number of steps times t, this one {told.scale:g} {told.of}")
    # The shift with which their last level is t_min: 1 / steps without one.
    shift = process.t_min / (1 - process.t_min) * (steps - 1)
    return {"num_train_timesteps": int(steps), "shift": max(1.0, round(shift, 9))}


def _chain(chain: ChainSDE, told: NoiseInput, predicted: str) -> dict[str, Any]:
    if told.of != "time" or (told.scale, told.shift) != (chain.steps - 1, 0) or told.process != chain:
        raise ValueError(f"diffusers' networks are told the step of the chain, this one {told.scale:g} {told.of}")
    options: dict[str, Any] = {"num_train_timesteps": chain.steps, "prediction_type": predicted, "clip_sample": False,
                               "rescale_betas_zero_snr": chain.zero_terminal_snr}  # fmt: skip
    schedule = next((name for name, ours in SCHEDULES.items() if ours == chain.schedule), None)
    if schedule is None or (schedule == "squaredcos_cap_v2" and (chain.offset, chain.max_beta) != (0.008, 0.999)):
        return options | {"trained_betas": chain._table_of_betas().tolist()}
    ends = {} if schedule == "squaredcos_cap_v2" else {"beta_start": chain.beta_start, "beta_end": chain.beta_end}
    return options | {"beta_schedule": schedule, **ends}


def _unet(model: Denoiser, network: NCSNpp) -> Any:
    options = network.options
    for name, wanted in DDPM.items():
        if tuple_of(getattr(options, name)) != tuple_of(wanted):
            raise ValueError(f"diffusers' UNet2DModel has {name} = {wanted!r}, this network {getattr(options, name)!r}")
    shape = model.event_shape or ()
    if network.conditions or network.num_classes or len(shape) != 3:
        raise ValueError("diffusers' UNet2DModel has no null class and takes images alone: train without conditions")
    widths = [options.channels * mult for mult in options.channel_mult]
    groups = min(32, *widths)
    if any(width % groups or (width > 32 and groups < 32) for width in widths):
        raise ValueError(f"diffusers has one number of groups for all norms, and none fits channels of {widths}")
    count = len(widths)
    unet = diffusers_library().UNet2DModel(
        sample_size=shape[-1], in_channels=shape[0], out_channels=shape[0],
        block_out_channels=tuple(widths), layers_per_block=options.num_res_blocks, norm_num_groups=groups,
        norm_eps=1e-6, down_block_types=("DownBlock2D",) * count, up_block_types=("UpBlock2D",) * count,
        attention_head_dim=widths[-1], downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
        dropout=options.dropout,
    )  # fmt: skip
    state: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        state |= _theirs(name, value.detach().float().cpu())
    unet.load_state_dict(state)
    return unet.eval()


def tuple_of(value: Any) -> Any:
    """Lists as tuples."""
    return tuple(value) if isinstance(value, list) else value


HEADS = {"stem": "conv_in", "head.norm": "conv_norm_out", "head.conv": "conv_out",
         "embedding.mapping.layers.0": "time_embedding.linear_1",
         "embedding.mapping.layers.2": "time_embedding.linear_2"}  # fmt: skip
LAYERS = {"norm1": "norm1", "conv1": "conv1", "modulation": "time_emb_proj", "norm2": "norm2", "conv2": "conv2",
          "skip": "conv_shortcut"}  # fmt: skip


def _theirs(name: str, value: Tensor) -> dict[str, Tensor]:
    """One of our tensors as theirs, by their names; none for the table of frequencies, which is computed there."""
    layer, _, kind = name.rpartition(".")
    if name == "embedding.mapping.frequencies":
        return {}
    if layer in HEADS:
        return {f"{HEADS[layer]}.{kind}": value}
    way, number, *rest = layer.split(".")
    if way == "middle":
        if rest[0] == "block":
            return {f"mid_block.resnets.{number}.{LAYERS[rest[1]]}.{kind}": value}
        there = "mid_block.attentions.0"
        if rest[1] == "qkv":
            parts = (value if kind == "bias" else value[..., 0, 0]).chunk(3)
            return {f"{there}.to_{part}.{kind}": v for part, v in zip("qkv", parts, strict=True)}
        own = {"norm": "group_norm", "out": "to_out.0"}[rest[1]]
        return {f"{there}.{own}.{kind}": value[..., 0, 0] if value.ndim == 4 else value}
    if rest[0] == "resample":
        own = {"down": "downsamplers", "up": "upsamplers"}[way]
        return {f"{way}_blocks.{int(number) - 1}.{own}.0.conv.{kind}": value}
    return {f"{way}_blocks.{number}.resnets.{rest[1]}.{LAYERS[rest[3]]}.{kind}": value}
