"""diffusers: folders as its ``save_pretrained`` writes them, of a pipeline or of one model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sde.data.transform import Transform
from sde.model.noise_input import NoiseInput
from sde.networks.diffusers_network import KINDS
from sde.pretrained.contents import Contents, read_contents, read_described
from sde.pretrained.facts import MISSING, Facts, Kind, kinds_by_name
from sde.pretrained.foreign import AS_PUBLISHED, Foreign, empty_network, pixels
from sde.pretrained.names.theirs import Theirs, translate
from sde.process.chain import ChainSDE

PROJECT = "huggingface/diffusers; the licence is that of the model's own page"

PARTS = ("unet", "transformer", ".")
"""The folders of a pipeline that hold its network; of a model by itself, the folder."""

FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors",
         "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin")  # fmt: skip
"""The files of weights, the first that there is."""

OF_SAMPLING = (
    *(
        "_diffusers_version",
        "algorithm_type",
        "clip_sample",
        "clip_sample_range",
        "corrector_order",
        "disable_corrector",
    ),
    *("dynamic_thresholding_ratio", "eta", "euler_at_final", "final_sigmas_type", "interpolation_type"),
    *("lambda_min_clipped", "lower_order_final", "noise_sampler_seed", "original_inference_steps", "predict_x0"),
    *("predictor_order", "sample_max_value", "set_alpha_to_one", "sigma_max", "sigma_min", "skip_prk_steps"),
    *("solver_order", "solver_p", "solver_type", "steps_offset", "thresholding", "timestep_scaling"),
    *("timestep_spacing", "timestep_type", "use_beta_sigmas", "use_exponential_sigmas", "use_karras_sigmas"),
    *("use_lu_lambdas", "variance_type"),
)
"""What the schedulers of chains write beside the chain: samplers here have options of their own."""

OPTIONS: Mapping[str, str] = {
    "num_train_timesteps": "number of the scheduler's steps in training, as 1000",
    "beta_schedule": "how its betas run: linear, scaled_linear, squaredcos_cap_v2 or sigmoid",
    "beta_start": "its first beta, as 0.0001",
    "beta_end": "its last beta, as 0.02",
    "trained_betas": "its betas one by one, or null",
    "rescale_betas_zero_snr": "whether its betas are shifted to no signal at the last step",
    "prediction_type": "what the network predicts: epsilon, sample or v_prediction",
    "_class_name": "the scheduler's class, as DDPMScheduler",
    **dict.fromkeys(OF_SAMPLING, "an option of the scheduler's own sampling"),
}

OPTION_KINDS: Mapping[str, Kind] = kinds_by_name(
    {
        str: "beta_schedule prediction_type _class_name _diffusers_version algorithm_type final_sigmas_type "
        "interpolation_type solver_type timestep_spacing timestep_type variance_type",
        bool: "rescale_betas_zero_snr clip_sample euler_at_final lower_order_final predict_x0 set_alpha_to_one "
        "skip_prk_steps thresholding use_beta_sigmas use_exponential_sigmas use_karras_sigmas use_lu_lambdas",
        int: "num_train_timesteps corrector_order original_inference_steps predictor_order solver_order steps_offset",
        float: "beta_start beta_end clip_sample_range dynamic_thresholding_ratio eta lambda_min_clipped "
        "sample_max_value timestep_scaling",
        (float, type(None)): "sigma_max sigma_min",
        (int, type(None)): "noise_sampler_seed",
        (tuple, type(None)): "trained_betas",
        list: "disable_corrector",
    }
)
"""What each option may be, but for a solver, an object of its own."""

NEEDED = (
    *("prediction_type", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end"),
    "rescale_betas_zero_snr",
)
"""What is told where there is no scheduler's config."""

AUTOENCODERS = ("vae", "vqvae", "movq")
"""The folders of a pipeline's autoencoder."""

SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine",
             "sigmoid": "sigmoid_beta"}  # fmt: skip
"""Schedules of a chain by diffusers' name."""

PREDICTIONS = {"epsilon": "noise", "sample": "denoised", "v_prediction": "v"}
"""Parametrizations by diffusers' name."""

SEQUENCE_LENGTH = 77
"""Tokens of the sequence that a network attends to where nothing says it, those of CLIP; it may have any number."""

OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the layers of attention before diffusers 0.15, and today."""


def recognizes(contents: Contents) -> bool:
    """Whether it is a folder with the config of a network of diffusers, or of a pipeline."""
    return contents.kind == "folder" and any(_config(contents, part) is not None for part in PARTS)


def read(contents: Contents, weights: str, facts: Facts) -> Foreign:
    """Its network, wrapped, on the chain of its scheduler; ``weights`` "ema" takes unet_ema where there is one."""
    parts = [part for part in PARTS if _config(contents, part) is not None]
    part = parts[0]
    config = _config(contents, part) or {}
    if weights == "ema" and _config(contents, f"{part}_ema") is not None:
        part = f"{part}_ema"
    kind, channels = config["_class_name"], config.get("in_channels", 4)
    size = config.get("sample_size", 32)
    event_shape = (channels, *(size if isinstance(size, list) else (size, size)))
    scheduler = contents.data.get("scheduler/scheduler_config.json", {})
    if not scheduler:
        betas = facts.get("trained_betas", None)
        of_betas = ("prediction_type", "rescale_betas_zero_snr")
        facts.require({name: MISSING for name in NEEDED if not betas or name in of_betas})
    chain = _chain(scheduler, facts)
    predicted = facts.settle(
        "prediction_type", scheduler.get("prediction_type", "epsilon" if scheduler else MISSING), str
    )
    if predicted not in PREDICTIONS:
        raise ValueError(f"prediction_type = {predicted!r}: needs one of {', '.join(PREDICTIONS)}")
    settings = json.dumps({name: value for name, value in config.items() if not name.startswith("_")})
    network: dict[str, Any] = {"name": "diffusers", "kind": kind, "settings": settings}
    classes = _classes(kind, config)
    width = config.get("cross_attention_dim") if kind == "UNet2DConditionModel" else None
    conditions = {"sequence": (SEQUENCE_LENGTH, width or 1280)} if kind == "UNet2DConditionModel" else {}
    state = _state(contents.path / part, network, event_shape, classes)
    # A DiT knows the whole steps alone.
    rounding = "nearest" if kind == "DiTTransformer2DModel" else None
    return Foreign(
        network=network,
        event_shape=event_shape,
        num_classes=classes,
        sde=chain,
        state=state,
        parametrization=PREDICTIONS[predicted],
        sigma_data=1.0,
        noise_input=NoiseInput("time", float(chain.steps - 1), rounding=rounding),
        scaled_input=False,
        # Of a network of latents what they mean is the autoencoder's.
        transform=pixels() if channels in (1, 3) and not _of_latents(contents) else Transform(),
        null_trained=not conditions and (kind == "DiTTransformer2DModel" or not classes),
        conditions=conditions,
        levels=chain.times.flip(0),
        origin={} if part.endswith("_ema") else {"weights": AS_PUBLISHED},
    )


def _of_latents(contents: Contents) -> bool:
    """Whether a pipeline has an autoencoder: its network is of latents, which may have three channels."""
    index = contents.data.get("model_index.json")
    listed = {name for name, of in index.items() if of and of != [None, None]} if isinstance(index, dict) else set()
    return any(name in listed or f"{name}/config.json" in contents.data for name in AUTOENCODERS)


def _config(contents: Contents, part: str) -> dict[str, Any] | None:
    found = contents.data.get("config.json" if part == "." else f"{part}/config.json")
    return found if isinstance(found, dict) and found.get("_class_name") in KINDS else None


def _classes(kind: str, config: dict[str, Any]) -> int | None:
    if kind == "DiTTransformer2DModel":
        return config.get("num_embeds_ada_norm", 1000)
    return config.get("num_class_embeds")


def _chain(scheduler: dict[str, Any], facts: Facts) -> ChainSDE:
    """The chain of a scheduler's config, whose samplers are ours."""

    def told(name: str, default: Any) -> Any:
        # A config of the library leaves out nothing, but those of older versions know less.
        return facts.settle(name, scheduler.get(name, default if scheduler else MISSING), type(default))

    name = str(scheduler.get("_class_name", facts.get("_class_name", "")))
    schedule = scheduler.get("beta_schedule", facts.told("beta_schedule"))
    if schedule is MISSING and scheduler:
        raise ValueError(
            f"the scheduler {name} has no betas, and no process here: those of chains have ({', '.join(SCHEDULES)})"
        )
    options: dict[str, Any] = {"zero_terminal_snr": told("rescale_betas_zero_snr", False)}
    betas = scheduler.get("trained_betas") or facts.get("trained_betas", None)
    if betas:
        return ChainSDE.of_betas(betas, **options)
    schedule = told("beta_schedule", "linear")
    if schedule not in SCHEDULES:
        raise ValueError(f"beta_schedule = {schedule!r} has no process here: {', '.join(SCHEDULES)} have")
    if schedule != "squaredcos_cap_v2":
        options |= {"beta_start": told("beta_start", 1e-4), "beta_end": told("beta_end", 0.02)}
    return ChainSDE(SCHEDULES[schedule], steps=told("num_train_timesteps", 1000), **options)


def _state(
    folder: Path, network: dict[str, Any], event_shape: tuple[int, ...], classes: int | None
) -> dict[str, Tensor]:
    """The weights of a folder, of today's names, by ours."""
    tensors: dict[str, Tensor] = {}
    for path in _files(folder):
        tensors |= read_contents(path).tensors()
    theirs = {_today(name): value for name, value in tensors.items()}
    ours = empty_network(network, event_shape, classes).state_dict()
    return translate(theirs, {name: Theirs(name.removeprefix("model.")) for name in ours}, ours)


def _files(folder: Path) -> list[Path]:
    for name in FILES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            return _indexed(index)
    raise ValueError(f"{folder} holds no weights: needs {' or '.join(FILES)}")


def _indexed(index: Path) -> list[Path]:
    """The files that an index names, which lie beside it."""
    found = read_described(index)
    named = found.get("weight_map") if isinstance(found, dict) else None
    parts = [*named.values()] if isinstance(named, dict) else []
    # Names of files beside the index, not of others.
    if not parts or not all(
        isinstance(part, str) and part not in ("", "..") and Path(part).name == part for part in parts
    ):
        raise ValueError(f"{index} has no weight_map of tensors to the names of files beside it: it may be damaged")
    return [index.parent / part for part in sorted({*parts})]


def _today(name: str) -> str:
    head, _, tail = name.rpartition(".")
    stem, _, layer = head.rpartition(".")
    return f"{stem}.{OLD_NAMES[layer]}.{tail}" if layer in OLD_NAMES and ".attentions." in name else name
