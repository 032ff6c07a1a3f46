"""score_sde's checkpoints: its models ``ddpm`` and ``ncsnpp`` on VE, VP and sub-VP processes (Song et al. 2021)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sde.data.transform import Transform
from sde.networks.mapping import positional_frequencies
from sde.pretrained.contents import Contents
from sde.pretrained.facts import MISSING, Facts
from sde.pretrained.foreign import AS_PUBLISHED, Foreign, check_size, empty_network, pixels
from sde.pretrained.names.song import score_sde_names
from sde.pretrained.names.theirs import numbered, translate
from sde.pretrained.score_sde.modules import PREFIX, architecture
from sde.pretrained.score_sde.options import OPTION_KINDS as OPTION_KINDS
from sde.pretrained.score_sde.options import OPTIONS as OPTIONS
from sde.pretrained.score_sde.processes import EPSILON, chain_of, kind_of, log_sigma_of, of_chain, process_of

PROJECT = "score_sde (Song et al. 2021; code Apache 2.0, weights as their publisher says)"
FREQUENCIES, RANDOM = "embedding.mapping.frequencies", "all_modules.0.W"
PROGRESSIVE = {"none": "none", "input_skip": "skip", "output_skip": "skip", "residual": "residual"}


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
    kind, continuous = kind_of(facts.settle("sde")), facts.settle("continuous", kind=bool)
    chain = chain_of(facts, sigmas)
    if facts.settle("scale_by_sigma", kind=bool):
        network |= {"scale_by_sigma": True, "log_sigma": log_sigma_of(facts, network["embedding_type"], chain)}
    event_shape = (facts.settle("num_channels", found["num_channels"]), size, size)
    ours = empty_network(network, event_shape, None)
    positional = network["embedding_type"] == "positional"
    tables = {FREQUENCIES: positional_frequencies(found["nf"] // 2)} if positional else {}
    state = translate(tensors, score_sde_names(ours), ours.state_dict(), computed=tables)
    sde, told, parametrization = process_of(facts, kind, continuous, network["embedding_type"], chain)
    steps = of_chain(facts, "num_scales", chain)
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


def _transform(centered: bool, dequantized: bool) -> Transform:
    """From whole levels to [-1, 1] or [0, 1]; with ``dequantized`` the levels with noise in [0, 1) over 256."""
    if not dequantized:
        return pixels(-1.0 if centered else 0.0)
    return Transform.of_levels(256) if centered else Transform((0.0,), (256.0,), 256)
