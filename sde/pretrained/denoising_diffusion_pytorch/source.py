"""denoising-diffusion-pytorch's files: a GaussianDiffusion, its average, and the tables of its chain."""

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sde.model.noise_input import NoiseInput
from sde.networks.linear_attention_unet import LinearAttentionUNet
from sde.pretrained.contents import Contents
from sde.pretrained.denoising_diffusion_pytorch.names import unet_names
from sde.pretrained.denoising_diffusion_pytorch.options import OPTION_KINDS as OPTION_KINDS
from sde.pretrained.denoising_diffusion_pytorch.options import OPTIONS as OPTIONS
from sde.pretrained.facts import MISSING, Facts, of_kind, same
from sde.pretrained.foreign import Foreign, check_size, empty_network, pixels
from sde.pretrained.names.theirs import numbered, translate
from sde.pretrained.schedules import linear_or_cosine, settle_schedule
from sde.process.chain import ChainSDE

PROJECT = "denoising-diffusion-pytorch (Phil Wang; code MIT, weights as their publisher says)"

OBJECTIVES = {"pred_noise": "noise", "pred_x0": "denoised", "pred_v": "v"}
FREQUENCIES = "embedding.mapping.frequencies"
TABLES = ("betas", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "loss_weight")
"""What is read of the tables of a chain, which are in float32."""


def recognizes(contents: Contents) -> bool:
    """Whether a file is one of Trainer's, with a Unet under ``model``."""
    return contents.kind == "torch" and contents.tensors("model").keys() >= {
        "betas",
        "model.init_conv.weight",
        "model.time_mlp.1.weight",
        "model.final_conv.weight",
    }


def read(contents: Contents, weights: str, facts: Facts) -> Foreign:
    """``model-N.pt``, in which all is found but the size of images, which can be any.

    Raises ValueError for a version of the project from before attention had learned keys and values, and as
    ``Source.read`` does.
    """
    held = contents.tensors("model") if weights == "raw" else numbered(contents.tensors("ema"), "ema_model.")
    if not held:
        raise ValueError(f"weights = {weights!r}: {contents.path.name} has no average under 'ema': take 'raw'")
    tables = {name: held[name].double().numpy() for name in TABLES if name in held}
    if len({table.shape for table in tables.values()}) > 1:
        shapes = ", ".join(f"{name} {table.shape}" for name, table in tables.items())
        raise ValueError(f"the tables of the chain are not of one shape, {shapes}: the file is damaged, or changed")
    tensors = numbered(held, "model.")
    missing = facts.missing({"channels": MISSING if _unsaid(tensors) else 0, "objective": _objective(tables)})
    if missing:
        # What an import asks for besides is asked for here, too.
        facts.require(dict.fromkeys(["image_size", *missing], MISSING))
    network, channels = _network(tensors, facts)
    size = facts.told("image_size")
    factor = 2 ** (len(network["channel_mult"]) - 1)
    # Where nothing tells it, one that the levels can halve.
    side = 2 * factor if size is MISSING else size
    space = tuple(
        of_kind("image_size", part, int) for part in (side if isinstance(side, list | tuple) else (side, side))
    )
    if len(space) != 2:
        raise ValueError(f"facts: image_size = {size!r}: needs one side, or height and width, as [32, 32]")
    check_size("image_size", space, factor)
    process = _process(tables, facts)
    ours = cast(LinearAttentionUNet, empty_network(network, (channels, *space), None))
    sinusoidal = network["noise_features"] == "sinusoidal"
    computed = {FREQUENCIES: _frequencies(network["channels"], facts)} if sinusoidal else {}
    state = translate(tensors, unet_names(ours), ours.state_dict(), computed=computed)
    objective = facts.settle("objective", _objective(tables), str)
    if objective not in OBJECTIVES:
        raise ValueError(f"facts: objective = {objective!r}: needs one of {', '.join(OBJECTIVES)}")
    return Foreign(
        network=network,
        event_shape=(channels, *space),
        num_classes=None,
        sde=process,
        state=state,
        parametrization=OBJECTIVES[objective],
        noise_input=NoiseInput("time", float(process.steps - 1)),
        scaled_input=False,
        transform=pixels() if facts.get("auto_normalize", True) else pixels(0.0, 1.0),
        levels=process.times.flip(0),
        unsized=facts.request("image_size") if size is MISSING else "",
    )


def _unsaid(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the channels of x are not told: as many with an estimate in and a variance out look the same."""
    inputs, outputs = tensors["init_conv.weight"].shape[1], tensors["final_conv.weight"].shape[0]
    return inputs == outputs and inputs % 2 == 0


def _network(tensors: Mapping[str, Tensor], facts: Facts) -> tuple[dict[str, Any], int]:
    """The network's name and options by its shapes, and the channels of x."""
    if "mid_attn.mem_kv" not in tensors:
        raise ValueError(
            "the file is of a version of denoising-diffusion-pytorch whose attention has no learned keys and values, "
            "which is not read: those from 1.9 are"
        )
    base = tensors["time_mlp.1.weight"].shape[0] // 4
    inputs, outputs = tensors["init_conv.weight"].shape[1], tensors["final_conv.weight"].shape[0]
    channels = facts.settle("channels", kind=int) if _unsaid(tensors) else min(inputs, outputs)
    count = sum(name.startswith("downs.") and name.endswith(".2.mem_kv") for name in tensors)
    last = [tensors[f"downs.{i}.3{'' if i == count - 1 else '.1'}.weight"].shape[0] for i in range(count)]
    memories = [tensors[f"downs.{i}.2.mem_kv"].shape[1:] for i in range(count)]
    full = [f"downs.{i}.2.to_out.weight" in tensors for i in range(count)]
    random = tensors.get("time_mlp.0.weights")
    found = {
        "dim": base,
        "init_dim": tensors["init_conv.weight"].shape[0],
        "dim_mults": tuple(c // base for c in last),
        "channels": channels,
        "self_condition": inputs == 2 * channels,
        "learned_variance": outputs == 2 * channels,
        "attn_heads": tuple(m[0] for m in memories),
        "attn_dim_head": tuple(m[2] if there else m[1] for m, there in zip(memories, full, strict=True)),
        "full_attn": tuple(full),
    }
    for name, value in found.items():
        told = facts.told(name)
        if told is MISSING or told is None or (name == "full_attn" and told in ((), [])):
            continue
        each = told if isinstance(told, list | tuple) or not isinstance(value, tuple) else (told,) * count
        if not same(each, value):
            facts.settle(name, value)
    learned = "fourier" if facts.get("random_fourier_features", False) else "learned"
    return {
        "name": "linear_attention_unet",
        "channels": base,
        "channel_mult": found["dim_mults"],
        "stem_channels": found["init_dim"],
        "heads": found["attn_heads"],
        "head_channels": found["attn_dim_head"],
        "full_attention": found["full_attn"],
        "dropout": facts.get("dropout", 0.0),
        "noise_features": "sinusoidal" if random is None else learned,
        "fourier_channels": 16 if random is None else 2 * len(random),
        "self_condition": found["self_condition"],
        "learned_variance": found["learned_variance"],
    }, channels


def _frequencies(channels: int, facts: Facts) -> Tensor:
    """theta^(-i / (n - 1)) in float32, as there."""
    count, theta = channels // 2, facts.get("sinusoidal_pos_emb_theta", 10_000.0)
    return torch.exp(torch.arange(count) * -(math.log(theta) / (count - 1)))


def _objective(tables: Mapping[str, np.ndarray]) -> Any:
    """What the network predicts, by the weights of its loss: 1, the signal-to-noise ratio r, or r / (r + 1), each times
    min(r, gamma) / r at most. They are told apart where r is about 1/2."""
    weight = tables.get("loss_weight")
    if weight is None:
        return MISSING
    ratio = (tables["sqrt_alphas_cumprod"] / tables["sqrt_one_minus_alphas_cumprod"]) ** 2
    at = int(np.abs(np.log(2 * ratio)).argmin())
    wanted = {"pred_noise": 1.0, "pred_x0": ratio[at], "pred_v": ratio[at] / (ratio[at] + 1)}
    return next((name for name, value in wanted.items() if abs(weight[at] / value - 1) < 1e-4), MISSING)


def _process(tables: Mapping[str, np.ndarray], facts: Facts) -> ChainSDE:
    """The chain of the file's tables: by name where they are those of one of ours, else by its betas."""
    steps = len(tables["betas"])
    # Linear betas of fewer steps would be 1 or more.
    names = ("linear", "cosine") if steps > 20 else ("cosine",)
    known = {name: linear_or_cosine(name, steps) for name in names} | {"sigmoid": ChainSDE("sigmoid", steps=steps)}
    # Their rounded ends of the sigmoid show in the last betas: the name is told by the first.
    half = slice(steps // 2)
    close = [
        name for name, chain in known.items() if np.allclose(_betas(chain)[half], tables["betas"][half], rtol=1e-3)
    ]
    if close:
        settle_schedule(facts, "beta_schedule", "timesteps", close[0], steps)
    facts.settle("timesteps", steps)
    # Each table is exact to float32: near the data that of sigma, near the noise that of alpha.
    alpha2, sigma2 = tables["sqrt_alphas_cumprod"] ** 2, tables["sqrt_one_minus_alphas_cumprod"] ** 2
    for name in close:
        if np.allclose(known[name].noise_levels.numpy(), np.sqrt(sigma2 / alpha2), rtol=1e-6):
            return known[name]
    return ChainSDE.of_alphas_cumprod(np.where(alpha2 > 0.5, 1 - sigma2, alpha2))


def _betas(chain: ChainSDE) -> np.ndarray:
    alpha2 = 1 / (1 + chain.noise_levels.numpy() ** 2)
    return 1 - alpha2 / np.concatenate([[1.0], alpha2[:-1]])
