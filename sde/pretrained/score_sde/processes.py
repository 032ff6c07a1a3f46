"""The processes of score_sde: VE, VP and sub-VP, in all times or in steps, and what its networks are told of them."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sde.model.noise_input import NoiseInput
from sde.pretrained.facts import MISSING, Facts
from sde.process.base import SDE
from sde.process.chain import ChainSDE
from sde.process.ve import VESDE
from sde.process.vp import VPSDE, SubVPSDE

EPSILON = {"vesde": 1e-5, "vpsde": 1e-3, "subvpsde": 1e-3}
"""Where the samplers of the project end."""
TIME_OF_VP = 999
"""What networks on VP and sub-VP processes are told at time 1, where they were trained on all times."""


def kind_of(sde: Any) -> str:
    """The name of a process as the project has it. Raises ValueError for others."""
    kind = str(sde).lower()
    if kind not in EPSILON:
        raise ValueError(f"facts: sde = {sde!r}: needs one of {', '.join(EPSILON)}")
    return kind


def chain_of(facts: Facts, sigmas: Tensor | None) -> dict[str, Any]:
    """The noise levels that the file holds, falling: their number and ends, up to rounding."""
    if sigmas is None:
        return {}
    digits = 12 if sigmas.dtype == torch.float64 else 6
    ends = {name: float(f"{float(sigmas[i]):.{digits}g}") for name, i in (("sigma_max", 0), ("sigma_min", -1))}
    return {name: facts.settle(name, value) for name, value in {"num_scales": len(sigmas), **ends}.items()}


def of_chain(facts: Facts, name: str, chain: Mapping[str, Any]) -> Any:
    """A number of the chain, from the file where it holds the levels, else as told."""
    return facts.settle(name, chain.get(name, MISSING), int if name == "num_scales" else float)


def log_sigma_of(facts: Facts, embedding_type: str, chain: Mapping[str, Any]) -> tuple[float, float]:
    """The line by which log sigma follows from what the network is told: itself, or the number of a noise level."""
    if embedding_type == "fourier":
        return 1.0, 0.0
    high, low = (math.log(of_chain(facts, name, chain)) for name in ("sigma_max", "sigma_min"))
    return (low - high) / (of_chain(facts, "num_scales", chain) - 1), high


def process_of(
    facts: Facts, kind: str, continuous: bool, embedding_type: str, chain: Mapping[str, Any]
) -> tuple[SDE, NoiseInput, str]:
    """The process, what the network is told of it, and the parametrization."""
    steps = of_chain(facts, "num_scales", chain)
    if kind == "vesde":
        exploding = VESDE(*(of_chain(facts, name, chain) for name in ("sigma_min", "sigma_max")))
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
