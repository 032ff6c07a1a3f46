"""EDM's pickles: networks with the preconditioning of VP, VE, iDDPM or EDM (Karras et al. 2022, table 1)."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from sde.device import double
from sde.model.noise_input import NoiseInput
from sde.pretrained.contents import Contents
from sde.pretrained.edm.dhariwal import dhariwal_unet
from sde.pretrained.edm.song import SONG_OPTIONS, song_unet
from sde.pretrained.facts import MISSING, Facts, Kind, kinds_by_name
from sde.pretrained.foreign import AS_PUBLISHED, Foreign, pixels
from sde.pretrained.names.theirs import numbered
from sde.pretrained.plain import Plain
from sde.process.chain import ChainSDE
from sde.process.ve import VESDE
from sde.process.vp import VPSDE

PROJECT = "EDM (Karras et al. 2022; weights CC BY-NC-SA 4.0)"

OPTIONS: Mapping[str, str] = {
    "cls": "class of the preconditioning: VPPrecond, VEPrecond, iDDPMPrecond or EDMPrecond",
    "img_resolution": "height and width of the images",
    "img_channels": "channels of the images",
    "label_dim": "classes; 0 for an unconditional model",
    "use_fp16": "whether the network runs in half precision on a GPU",
    "model_type": "class of the network: SongUNet or DhariwalUNet",
    "beta_d": "VPPrecond: how far beta rises",
    "beta_min": "VPPrecond: beta at time 0",
    "epsilon_t": "VPPrecond: the least time in training",
    "M": "VPPrecond and iDDPMPrecond: steps of the chain",
    "C_1": "iDDPMPrecond: the least ratio of alpha^2 of two steps",
    "C_2": "iDDPMPrecond: the offset of the cosine",
    "sigma_min": "the lowest noise level of the network",
    "sigma_max": "the highest noise level of the network",
    "sigma_data": "EDMPrecond: standard deviation of the data",
    **SONG_OPTIONS,
}

OPTION_KINDS: Mapping[str, Kind] = kinds_by_name(
    {
        str: "cls model_type embedding_type encoder_type decoder_type",
        bool: "use_fp16",
        int: "img_resolution img_channels label_dim M model_channels channel_mult_emb channel_mult_noise num_blocks "
        "augment_dim",
        float: "beta_d beta_min epsilon_t C_1 C_2 sigma_min sigma_max sigma_data dropout label_dropout",
        tuple: "channel_mult attn_resolutions resample_filter",
    }
)
"""What each option may be."""

NETWORKS: dict[str, Callable[[Mapping[str, Tensor], Callable[..., Any], bool], tuple[dict, dict[str, Tensor]]]] = {
    "SongUNet": song_unet,
    "DhariwalUNet": dhariwal_unet,
}
"""By its class, what makes of a network's tensors, its options (a function of name and default) and whether it has
channels of a learned variance, its name and options here, and its weights by our names."""

DEFAULT_NETWORK = {"VPPrecond": "SongUNet", "VEPrecond": "SongUNet"}
LOWEST, HIGHEST = 0.002, 80.0
"""The noise levels that EDM's samplers go through, where the network has them."""


def recognizes(contents: Contents) -> bool:
    """Whether a file is a pickle of a network in one of EDM's preconditionings."""
    return contents.kind == "pickle" and _network(contents) is not None


def read(contents: Contents, weights: str, facts: Facts) -> Foreign:
    """A ``network-snapshot-*.pkl``: the average alone, with all options of the network. Raises ValueError for the raw
    weights, and for a network or preconditioning that is none of EDM's."""
    if weights != "ema":
        raise ValueError(f"weights = {weights!r}: EDM's pickles hold the average alone, take 'ema'")
    net = _network(contents)
    if net is None:
        raise ValueError("it is no pickle of a network of EDM's")
    facts.settle("cls", net.kind)

    def found_of(name: str, default: Any) -> Any:
        return net.options.get(name, net.state.get(name, default))

    def option(name: str, default: Any = MISSING) -> Any:
        """What the network was made with, or its class's default."""
        return facts.settle(name, found_of(name, default), int if default is MISSING else type(default))

    facts.require({name: found_of(name, MISSING) for name in ("img_resolution", "img_channels")})
    kind = option("model_type", DEFAULT_NETWORK.get(net.kind, "DhariwalUNet"))
    if kind not in NETWORKS:
        raise ValueError(f"model_type = {kind!r}: EDM's networks that are read are {', '.join(NETWORKS)}")
    tensors = numbered(dict(net.tensors()), "model.")
    network, state = NETWORKS[kind](tensors, option, net.kind == "iDDPMPrecond")
    size, channels = option("img_resolution"), option("img_channels")
    preconditioning, lowest, highest = PRECONDITIONINGS[net.kind](option)
    sde = VESDE(max(lowest, LOWEST), min(highest, HIGHEST))
    levels = preconditioning.pop("levels", None)
    return Foreign(
        network=network,
        event_shape=(channels, size, size),
        num_classes=option("label_dim", 0) or None,
        sde=sde,
        state=state,
        transform=pixels(),
        null_trained=not option("label_dim", 0) or option("label_dropout", 0.0) > 0,
        levels=None if levels is None else sde.t_of_noise_level(_within(levels, sde)),
        # Of a network by itself nobody knows whether it is averaged.
        origin={"model": f"{net.kind} of {kind}"}
        | ({} if isinstance(contents.data, dict) else {"weights": AS_PUBLISHED}),
        **preconditioning,
    )


def _network(contents: Contents) -> Plain | None:
    """The preconditioned network of a pickle: its entry "ema", or itself."""
    found = contents.data.get("ema") if isinstance(contents.data, dict) else contents.data
    return found if isinstance(found, Plain) and found.kind in PRECONDITIONINGS else None


def _within(levels: Tensor, sde: VESDE) -> Tensor:
    """Noise levels, falling, that a process has."""
    return levels[(levels >= sde.sigma_min * (1 - 1e-6)) & (levels <= sde.sigma_max * (1 + 1e-6))].flip(0)


# D(x; sigma) of all of them is seen through a process with alpha = 1. Returned are arguments of Foreign, and the range
# of noise levels of the network.

Preconditioning = tuple[dict[str, Any], float, float]


def _vp(option: Callable[..., Any]) -> Preconditioning:
    low, rise, least = option("beta_min", 0.1), option("beta_d", 19.9), option("epsilon_t", 1e-5)
    steps = option("M", 1000)
    process = VPSDE(low, low + rise, t_min=least)
    ends = process.noise_level(double([least, 1.0])).tolist()
    told = NoiseInput("time", scale=steps - 1, process=process)
    return {"parametrization": "noise", "sigma_data": 1.0, "noise_input": told}, ends[0], ends[1]


def _ve(option: Callable[..., Any]) -> Preconditioning:
    told = NoiseInput("log_noise_level", scale=1.0, shift=math.log(0.5))
    found = {"parametrization": "scaled_score", "scaled_input": False, "noise_input": told}
    return found, option("sigma_min", 0.02), option("sigma_max", 100.0)


def _iddpm(option: Callable[..., Any]) -> Preconditioning:
    ratio, offset, steps = option("C_1", 0.001), option("C_2", 0.008), option("M", 1000)
    chain = ChainSDE("cosine", steps=steps, offset=offset, max_beta=1 - ratio)
    levels = chain.noise_levels
    found = {"parametrization": "noise", "sigma_data": 1.0, "levels": levels}
    return {**found, "noise_input": NoiseInput("step", scale=1.0, process=chain)}, levels[0].item(), levels[-1].item()


def _edm(option: Callable[..., Any]) -> Preconditioning:
    found = {"parametrization": "edm", "sigma_data": option("sigma_data", 0.5)}
    return found, option("sigma_min", 0.0), option("sigma_max", math.inf)


PRECONDITIONINGS: dict[str, Callable[[Callable[..., Any]], Preconditioning]] = {
    "VPPrecond": _vp,
    "VEPrecond": _ve,
    "iDDPMPrecond": _iddpm,
    "EDMPrecond": _edm,
}
"""How each class turns the network into D(x; sigma)."""
