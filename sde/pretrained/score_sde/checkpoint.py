"""score_sde's checkpoints, written: what its own code loads of a denoiser on our NCSN++."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde.model.denoiser import Denoiser
from sde.networks.ncsnpp import NCSNpp
from sde.pretrained.contents import Contents
from sde.pretrained.facts import Facts
from sde.pretrained.foreign import Foreign
from sde.pretrained.names.song import score_sde_names
from sde.pretrained.score_sde.options import DATA, OPTIONS, TRAINING
from sde.pretrained.score_sde.source import FREQUENCIES, RANDOM, read
from sde.process.base import SDE
from sde.process.chain import ChainSDE
from sde.process.ve import VESDE
from sde.process.vp import VPSDE, SubVPSDE

ORDER = (
    "GroupNorm_0",
    "Conv_0",
    "Conv2d_0",
    "Dense_0",
    "GroupNorm_1",
    "Conv_1",
    "Conv_2",
    *(f"NIN_{i}" for i in range(4)),
)
"""Layers of its modules as they register them, the order of its averages."""

CHECKPOINT = "checkpoint_1.pth"


def write_score_sde(model: Denoiser, folder: Path) -> list[Path]:
    """Write ``checkpoint_1.pth`` and, as ``config.json``, the options by score_sde's names with which it is loaded.

    The same weights stand for the model's and the averaged ones. Raises ValueError for what score_sde cannot express:
    networks other than its own, conditions, other processes, and another noise input, parametrization or transform.
    """
    network = model.network
    if not isinstance(network, NCSNpp) or model.event_shape is None or len(model.event_shape) != 3:
        raise ValueError(f"score_sde has the network ncsnpp, of images alone; this one is {type(network).__name__}")
    if network.num_classes or network.conditions:
        raise ValueError("score_sde's networks are not conditioned: this one is told classes or conditions")
    config = _process(model.sde) | _options(network) | _data(model, network)
    tensors = _tensors(network)
    contents = Contents(Path(CHECKPOINT), "torch", {"model": {f"module.{k}": v for k, v in tensors.items()}})
    try:
        again = read(contents, "raw", Facts(config, OPTIONS))
    except ValueError as error:
        raise ValueError(f"score_sde has no such network: {error}") from None
    _check_same(model, network, again)
    trained = [torch.nn.Parameter(value) for value in tensors.values()]
    state = {
        "optimizer": torch.optim.Adam(trained, lr=2e-4).state_dict(),
        **contents.data,
        "ema": {
            "decay": 0.9999,
            "num_updates": 1,
            "shadow_params": [value for name, value in tensors.items() if name != RANDOM],
        },
        "step": 1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / CHECKPOINT)
    groups: dict[str, dict[str, Any]] = {"model": {}, "data": {}, "training": {}}
    for name, value in config.items():
        groups["training" if name in TRAINING else "data" if name in DATA else "model"][name] = value
    (folder / "config.json").write_text(json.dumps(groups, indent=2))
    return [folder / CHECKPOINT, folder / "config.json"]


def _tensors(network: NCSNpp) -> dict[str, Tensor]:
    state = network.state_dict()
    found: dict[str, Tensor] = {}
    for name, there in score_sde_names(network).items():
        if name in state and not (name == FREQUENCIES and network.options.embedding_type == "positional"):
            back = there.back(state[name].detach().float().cpu())
            found |= dict(zip(there.names, back if isinstance(back, tuple) else (back,), strict=True))

    def place(name: str) -> tuple[int, int, bool]:
        _, number, *layer, kind = name.split(".")
        return int(number), ORDER.index(layer[0]) if layer else -1, kind in ("bias", "b")

    return {name: found[name].contiguous() for name in sorted(found, key=place)}


def _options(network: NCSNpp) -> dict[str, Any]:
    options = network.options
    ddpm = options.group_channels == 1
    blocks = "biggan" if options.resample_blocks else "ddpm"
    found: dict[str, Any] = {
        "name": "ddpm" if ddpm else "ncsnpp",
        "nf": options.channels,
        "ch_mult": [*options.channel_mult],
        "num_res_blocks": options.num_res_blocks,
        "attn_resolutions": [*options.attention_resolutions],
        "dropout": options.dropout,
        "resamp_with_conv": options.resample_conv,
        "conditional": True,
        "nonlinearity": "swish",
        "scale_by_sigma": options.scale_by_sigma,
        "embedding_type": options.embedding_type,
        "init_scale": 0.0,
    }
    if ddpm:
        return found
    pyramids = {"progressive": options.progressive_output, "progressive_input": options.progressive_input}
    skips = {"progressive": "output_skip", "progressive_input": "input_skip"}
    return found | {
        "fir": options.resampling == "fir",
        "fir_kernel": [*options.fir_kernel],
        "skip_rescale": options.skip_rescale,
        "resblock_type": blocks,
        **{name: skips[name] if kind == "skip" else kind for name, kind in pyramids.items()},
        "progressive_combine": options.progressive_combine,
        "fourier_scale": options.fourier_scale,
    }


BETAS, SIGMAS = ("beta_min", "beta_max"), ("sigma_min", "sigma_max")
PROCESSES: Mapping[type[SDE], tuple[str, tuple[str, str]]] = {
    VESDE: ("vesde", SIGMAS),
    VPSDE: ("vpsde", BETAS),
    SubVPSDE: ("subvpsde", BETAS),
}
"""score_sde's names of processes, and of what it has an option for of each."""


def _process(sde: SDE) -> dict[str, Any]:
    found: dict[str, Any] = dict(zip(("num_scales", *SIGMAS, *BETAS), (1000, 0.01, 50.0, 0.1, 20.0), strict=True))
    if getattr(sde, "schedule", "linear") == "linear":
        if type(sde) in PROCESSES:
            name, own = PROCESSES[type(sde)]
            return found | {"sde": name, "continuous": True} | {key: getattr(sde, key) for key in own}
        if isinstance(sde, ChainSDE):
            ends = {"beta_min": sde.beta_start * sde.steps, "beta_max": sde.beta_end * sde.steps}
            return found | {"sde": "vpsde", "continuous": False, "num_scales": sde.steps} | ends
    raise ValueError(
        f"score_sde has the processes vesde, vpsde and subvpsde, with linear betas; this one is {type(sde).__name__}"
    )


def _data(model: Denoiser, network: NCSNpp) -> dict[str, Any]:
    channels, height, width = model.event_shape or (0, 0, 0)
    if height != width:
        raise ValueError(f"score_sde's images are square; these are {height} x {width}")
    centered = network.options.centered
    if model.transform.learned:
        raise ValueError("score_sde's models see images, and this one latents of an autoencoder")
    outer = model.transform.outer
    cells = outer.shift in ((0.0,), (128.0,)) and outer.scale in ((256.0,), (128.0,))
    return {"image_size": height, "num_channels": channels, "centered": centered, "uniform_dequantization": cells}


def _check_same(model: Denoiser, network: NCSNpp, again: Foreign) -> None:
    """Raise ValueError for the first thing that score_sde understands otherwise."""
    ours, theirs = asdict(network.options), {k: v for k, v in again.network.items() if k != "name"}
    # What says how training is done, and where the frequencies came from, changes no output.
    free = ("activation_checkpointing", "fourier_scale", "dropout")
    known = asdict(replace(network.options, **theirs))
    unlike = [name for name in ours if name not in free and _plain(ours[name]) != _plain(known[name])]
    if network.options.embedding_type == "positional":
        unlike = [name for name in unlike if name != "frequency_unit"]
    if network.options.resampling == "conv":
        unlike = [name for name in unlike if name != "fir_kernel"]
    if unlike:
        name = unlike[0]
        raise ValueError(f"score_sde's network has {name} = {known[name]!r}, this one {ours[name]!r}")
    told = again.noise_input.bound(again.sde)
    pairs = {
        "parametrization": (model.parametrization, again.parametrization),
        "scaled_input": (model.scaled_input, again.scaled_input),
        "noise input": (replace(model.noise_input, process=None), replace(told, process=None)),
        "transform": (model.transform, again.transform),
    }
    for name, (here, there) in pairs.items():
        if here != there:
            raise ValueError(f"score_sde's {name} for such a network and process is {there}, this model's {here}")


def _plain(value: Any) -> Any:
    return [*value] if isinstance(value, tuple | list) else value
