"""score_sde's checkpoints: its models ``ddpm`` and ``ncsnpp`` on VE, VP and sub-VP processes (Song et al. 2021)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sde.data.transform import Transform
from sde.model.noise_input import NoiseInput
from sde.networks.mapping import positional_frequencies
from sde.pretrained.contents import Contents
from sde.pretrained.facts import MISSING, Facts
from sde.pretrained.foreign import AS_PUBLISHED, Foreign, check_size, empty_network, pixels
from sde.pretrained.names.song import score_sde_names
from sde.pretrained.names.theirs import numbered, translate
from sde.pretrained.score_sde.modules import PREFIX, architecture
from sde.pretrained.score_sde.options import OPTION_KINDS as OPTION_KINDS
from sde.pretrained.score_sde.options import OPTIONS as OPTIONS
from sde.process.base import SDE
from sde.process.chain import ChainSDE
from sde.process.ve import VESDE
from sde.process.vp import VPSDE, SubVPSDE

PROJECT = "score_sde (Song et al. 2021; code Apache 2.0, weights as their publisher says)"
FREQUENCIES, RANDOM = "embedding.mapping.frequencies", "all_modules.0.W"
PROGRESSIVE = {"none": "none", "input_skip": "skip", "output_skip": "skip", "residual": "residual"}
EPSILON = {"vesde": 1e-5, "vpsde": 1e-3, "subvpsde": 1e-3}
"""Where the samplers of the project end."""
TIME_OF_VP = 999
"""What networks on VP and sub-VP processes are told at time 1, where they were trained on all times."""


def recognizes(contents: Contents) -> bool:
    """Whether a file is one of score_sde's: its networks are one list, all_modules."""
    return contents.kind == "torch" and bool(_raw(contents))


def read(contents: Contents, weights: str, facts: Facts) -> Foreign:
    """A ``checkpoint_*.pth``: the model, and its average as a list in the order of the model's parameters. Raises
    ValueError for options with which no network of the project was trained, beside what ``Source.read`` says."""
    raw = _raw(contents)
    sigmas = raw.pop("sigmas", None)
    tensors = raw if weights == "raw" else raw | _average(contents, raw)
    found = architecture(tensors)
    _require(facts, found, sigmas)
    size = facts.settle("image_size", kind=int)
    check_size("image_size", [size], 2 ** (found["levels"] - 1))
    name, centered = _name(facts, found), facts.settle("centered", kind=bool)
    network = _network(facts, found, name, size) | {"centered": centered}
    kind, continuous = _kind(facts.settle("sde")), facts.settle("continuous", kind=bool)
    chain = _chain(facts, sigmas)
    if facts.settle("scale_by_sigma", kind=bool):
        network |= {"scale_by_sigma": True, "log_sigma": _log_sigma(facts, network["embedding_type"], chain)}
    event_shape = (facts.settle("num_channels", found["num_channels"]), size, size)
    ours = empty_network(network, event_shape, None)
    wanted = dict(ours.state_dict())
    tables = {}
    if network["embedding_type"] == "positional":
        tables[FREQUENCIES] = positional_frequencies(len(wanted.pop(FREQUENCIES)))
    state = translate(tensors, score_sde_names(ours), wanted) | tables
    sde, told, parametrization = _process(facts, kind, continuous, network["embedding_type"], chain)
    steps = _of_chain(facts, "num_scales", chain)
    return Foreign(
        network=network,
        event_shape=event_shape,
        num_classes=None,
        sde=sde,
        state=state,
        parametrization=parametrization,
        noise_input=told,
        scaled_input=False,
        transform=_transform(centered, facts.get("uniform_dequantization", False)),
        levels=torch.linspace(1, EPSILON[kind], steps, dtype=torch.float64).clamp(min=sde.t_min),
        origin={"model": f"{name} on {kind}, {'continuous' if continuous else 'discrete'}"}
        | ({} if _raw_of(contents, "model") else {"weights": AS_PUBLISHED}),
    )


def _raw(contents: Contents) -> dict[str, Tensor]:
    """The model's tensors, without the prefix of DataParallel; none where the file is another's."""
    return _raw_of(contents, "model") or _raw_of(contents)


def _raw_of(contents: Contents, *keys: str) -> dict[str, Tensor]:
    """Those under these keys; of a state dict by itself, under none, nobody knows whether they are averaged."""
    tensors = contents.tensors(*keys)
    tensors = numbered(tensors, "module.") or tensors
    return tensors if any(name.startswith(PREFIX) for name in tensors) else {}


def _average(contents: Contents, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averaged parameters by name. Frozen ones, the random frequencies, are not among them."""
    ema = contents.data.get("ema") if isinstance(contents.data, dict) else None
    shadow = ema.get("shadow_params") if isinstance(ema, dict) else None
    if not isinstance(shadow, list) or not all(isinstance(value, Tensor) for value in shadow):
        raise ValueError("weights = 'ema': the file has no average, take 'raw'")
    names = [name for name in raw if len(shadow) == len(raw) or name != RANDOM]
    if len(names) != len(shadow):
        raise ValueError(f"the average has {len(shadow)} tensors, the model {len(names)}: they do not fit one another")
    for name, value in zip(names, shadow, strict=True):
        if value.shape != raw[name].shape:
            raise ValueError(
                f"the average has shape {tuple(value.shape)} where the model has {name} of {tuple(raw[name].shape)}"
            )
    return dict(zip(names, shadow, strict=True))


def _require(facts: Facts, found: Mapping[str, Any], sigmas: Tensor | None) -> None:
    """Ask at once for all that tensors and facts leave open; before the network or the process is told, for what any
    of them needs."""
    fourier, name, sde = found["embedding_type"] == "fourier", facts.told("name"), facts.told("sde")
    name = "ncsnpp" if _is_ncsnpp(found) else name
    names = ["image_size", "centered", "nonlinearity", "sde", "continuous", "scale_by_sigma"]
    exploding = fourier or sde is MISSING or str(sde).lower() == "vesde"
    if sigmas is None:
        by_sigma = facts.told("scale_by_sigma") is True and not fourier
        names += ["num_scales", *(("sigma_min", "sigma_max") if exploding or by_sigma else ())]
    if not fourier and (sde is MISSING or not exploding):
        names += ["beta_min", "beta_max"]
    needed = {"name": name, **dict.fromkeys(names, MISSING)}
    if name != "ddpm":
        fir = found.get("fir", facts.told("fir"))
        needed |= {"skip_rescale": MISSING, "fir": fir} | ({"fir_kernel": MISSING} if fir else {})
    facts.require(needed)


def _is_ncsnpp(found: Mapping[str, Any]) -> bool:
    """Whether a network has what only ``ncsnpp`` has."""
    own = found["resblock_type"] == "biggan" or found["embedding_type"] == "fourier" or bool(found.get("fir"))
    return own or {found["progressive"], found["progressive_input"]} != {"none"}


def _name(facts: Facts, found: Mapping[str, Any]) -> str:
    """The project's name of the network."""
    name = str(facts.settle("name", "ncsnpp" if _is_ncsnpp(found) else MISSING))
    if name not in ("ddpm", "ncsnpp"):
        raise ValueError(f"facts: name = {name!r}: of score_sde's networks ddpm and ncsnpp are read")
    return name


def _network(facts: Facts, found: Mapping[str, Any], name: str, size: int) -> dict[str, Any]:
    """The network's name and options here, but for those of data and process."""
    sizes = [size // 2**level for level in range(found["levels"])]
    attended = [s for s, here in zip(sizes, found["attended"], strict=True) if here]
    told = facts.told("attn_resolutions", tuple)
    if told is MISSING or [s for s in sizes if s in told] != attended:
        facts.settle("attn_resolutions", attended)
    for option in ("nf", "num_res_blocks", "ch_mult", "resamp_with_conv"):
        facts.settle(option, found[option])
    if not facts.settle("conditional", found["conditional"]):
        raise ValueError("facts: conditional = False: a network that is not told the noise level is not read")
    activation = facts.settle("nonlinearity")
    if activation != "swish":
        raise ValueError(f"facts: nonlinearity = {activation!r}: networks with 'swish' are read")
    network = {
        "name": "ncsnpp",
        "channels": found["nf"],
        "channel_mult": tuple(found["ch_mult"]),
        "num_res_blocks": found["num_res_blocks"],
        "attention_resolutions": tuple(attended),
        "dropout": facts.get("dropout", 0.0),
        "resample_conv": found["resamp_with_conv"],
        "resample_blocks": found["resblock_type"] == "biggan",
        "embedding_type": found["embedding_type"],
        "frequency_unit": "cycle",
        "features_mult": 2 if found["embedding_type"] == "fourier" else 1,
    }
    if name == "ddpm":
        return network | {"resampling": "conv", "progressive_input": "none", "skip_rescale": False, "group_channels": 1}
    for option in ("embedding_type", "resblock_type", "progressive", "progressive_input"):
        facts.settle(option, found[option])
    fir = facts.settle("fir", found.get("fir", MISSING), bool)
    if found["progressive_input"] == "input_skip":
        network["progressive_combine"] = facts.settle("progressive_combine", found["progressive_combine"])
    return network | {
        "resampling": "fir" if fir else "conv",
        **({"fir_kernel": facts.settle("fir_kernel", kind=tuple)} if fir else {}),
        "progressive_input": PROGRESSIVE[found["progressive_input"]],
        "progressive_output": PROGRESSIVE[found["progressive"]],
        "skip_rescale": facts.settle("skip_rescale", kind=bool),
    }


def _kind(sde: Any) -> str:
    kind = str(sde).lower()
    if kind not in EPSILON:
        raise ValueError(f"facts: sde = {sde!r}: needs one of {', '.join(EPSILON)}")
    return kind


def _chain(facts: Facts, sigmas: Tensor | None) -> dict[str, Any]:
    """The noise levels that the file holds, falling: their number and ends, up to rounding."""
    if sigmas is None:
        return {}
    digits = 12 if sigmas.dtype == torch.float64 else 6
    ends = {name: float(f"{float(sigmas[i]):.{digits}g}") for name, i in (("sigma_max", 0), ("sigma_min", -1))}
    return {name: facts.settle(name, value) for name, value in {"num_scales": len(sigmas), **ends}.items()}


def _of_chain(facts: Facts, name: str, chain: Mapping[str, Any]) -> Any:
    return facts.settle(name, chain.get(name, MISSING), int if name == "num_scales" else float)


def _log_sigma(facts: Facts, embedding_type: str, chain: Mapping[str, Any]) -> tuple[float, float]:
    """The line by which log sigma follows from what the network is told: itself, or the number of a noise level."""
    if embedding_type == "fourier":
        return 1.0, 0.0
    high, low = (math.log(_of_chain(facts, name, chain)) for name in ("sigma_max", "sigma_min"))
    return (low - high) / (_of_chain(facts, "num_scales", chain) - 1), high


def _process(
    facts: Facts, kind: str, continuous: bool, embedding_type: str, chain: Mapping[str, Any]
) -> tuple[SDE, NoiseInput, str]:
    """The process, what the network is told of it, and the parametrization."""
    steps = _of_chain(facts, "num_scales", chain)
    if kind == "vesde":
        exploding = VESDE(*(_of_chain(facts, name, chain) for name in ("sigma_min", "sigma_max")))
        if (embedding_type == "fourier") != continuous:
            raise ValueError(
                f"facts: continuous = {continuous}: on a VE process networks with {embedding_type} embedding are "
                f"{'continuous' if not continuous else 'discrete'}"
            )
        if continuous:
            return exploding, NoiseInput("log_noise_level", scale=1.0), "score"
        return exploding, NoiseInput("time", scale=-(steps - 1), shift=steps - 1, rounding="nearest"), "score"
    if embedding_type == "fourier":
        raise ValueError(f"facts: sde = {kind!r}: networks with fourier embedding are on VE processes")
    low, high = (facts.settle(name, kind=float) for name in ("beta_min", "beta_max"))
    if kind == "subvpsde":
        return SubVPSDE(low, high, t_min=1e-5), NoiseInput("time", scale=TIME_OF_VP), "noise"
    if continuous:
        return VPSDE(low, high, t_min=1e-5), NoiseInput("time", scale=TIME_OF_VP), "noise"
    linear = ChainSDE("linear", steps=steps, beta_start=low / steps, beta_end=high / steps)
    return linear, NoiseInput("time", scale=steps - 1), "noise"


def _transform(centered: bool, dequantized: bool) -> Transform:
    """From whole levels to [-1, 1] or [0, 1]; with ``dequantized`` the levels with noise in [0, 1) over 256."""
    if not dequantized:
        return pixels(-1.0 if centered else 0.0)
    return Transform.of_levels(256) if centered else Transform((0.0,), (256.0,), 256)
