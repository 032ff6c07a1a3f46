"""diffusers' schedulers: the process that one stands for, and what a network predicts in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sde.pretrained.facts import MISSING, Facts, Kind, kinds_by_name
from sde.process.base import SDE
from sde.process.chain import ChainSDE
from sde.process.flow import FlowSDE

OF_SAMPLING = (
    *("_diffusers_version", "algorithm_type", "base_image_seq_len", "base_shift", "clip_sample", "clip_sample_range"),
    *("corrector_order", "disable_corrector", "dynamic_thresholding_ratio", "eta", "euler_at_final"),
    *("final_sigmas_type", "interpolation_type", "lambda_min_clipped", "lower_order_final", "max_image_seq_len"),
    *("max_shift", "noise_sampler_seed", "original_inference_steps", "predict_x0", "predictor_order"),
    *("sample_max_value", "scale_factors", "set_alpha_to_one", "shift_terminal", "sigma_max", "sigma_min"),
    *("skip_prk_steps", "solver_order", "solver_p", "solver_type", "steps_offset", "stochastic_sampling"),
    *("thresholding", "time_shift_type", "timestep_scaling", "timestep_spacing", "timestep_type", "upscale_mode"),
    *("use_beta_sigmas", "use_exponential_sigmas", "use_karras_sigmas", "use_lu_lambdas", "variance_type"),
)
"""What schedulers write beside the process: samplers here have options of their own."""

OPTIONS: Mapping[str, str] = {
    "num_train_timesteps": "number of the scheduler's steps in training, as 1000",
    "beta_schedule": "how its betas run: linear, scaled_linear, squaredcos_cap_v2 or sigmoid",
    "beta_start": "its first beta, as 0.0001",
    "beta_end": "its last beta, as 0.02",
    "trained_betas": "its betas one by one, or null",
    "rescale_betas_zero_snr": "whether its betas are shifted to no signal at the last step",
    "prediction_type": "what the network predicts: epsilon, sample, v_prediction or flow_prediction",
    "shift": "of a scheduler of flow matching, what its noise levels are multiplied by, as 1 or 3",
    "flow_shift": "the same of other schedulers with use_flow_sigmas",
    "use_flow_sigmas": "whether the path is that of flow matching, alpha = 1 - t, sigma = t",
    "use_dynamic_shifting": "whether the shift follows from the size of the items",
    "invert_sigmas": "whether its noise levels run the other way",
    "_class_name": "the scheduler's class, as DDPMScheduler or FlowMatchEulerDiscreteScheduler",
    **dict.fromkeys(OF_SAMPLING, "an option of the scheduler's own sampling"),
}

OPTION_KINDS: Mapping[str, Kind] = kinds_by_name(
    {
        str: "beta_schedule prediction_type _class_name _diffusers_version algorithm_type final_sigmas_type "
        "interpolation_type solver_type timestep_spacing timestep_type variance_type time_shift_type upscale_mode",
        bool: "rescale_betas_zero_snr clip_sample euler_at_final lower_order_final predict_x0 set_alpha_to_one "
        "skip_prk_steps thresholding use_beta_sigmas use_exponential_sigmas use_karras_sigmas use_lu_lambdas "
        "use_flow_sigmas use_dynamic_shifting invert_sigmas stochastic_sampling",
        int: "num_train_timesteps corrector_order original_inference_steps predictor_order solver_order steps_offset",
        float: "beta_start beta_end clip_sample_range dynamic_thresholding_ratio eta lambda_min_clipped "
        "sample_max_value timestep_scaling shift flow_shift",
        (float, type(None)): "sigma_max sigma_min base_shift max_shift shift_terminal",
        (int, type(None)): "noise_sampler_seed base_image_seq_len max_image_seq_len",
        (tuple, type(None)): "trained_betas scale_factors",
        list: "disable_corrector",
    }
)
"""What each option may be, but for a solver, an object of its own."""

OF_BETAS = ("prediction_type", "rescale_betas_zero_snr")
OF_CHAIN = (*OF_BETAS, "num_train_timesteps", "beta_schedule", "beta_start", "beta_end")
OF_HEUN = ("num_train_timesteps", "shift")
OF_FLOW = (*OF_HEUN, "use_dynamic_shifting", "invert_sigmas")
OF_FLOW_SIGMAS = ("prediction_type", "num_train_timesteps", "flow_shift", "use_dynamic_shifting")
"""What is told where there is no scheduler's config: of a chain of given betas, or by its schedule, and of flow
matching by the scheduler's class."""

SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine",
             "sigmoid": "sigmoid_beta"}  # fmt: skip
"""Schedules of a chain by diffusers' name."""

PREDICTIONS = {"epsilon": "noise", "sample": "denoised", "v_prediction": "v"}
"""Parametrizations by diffusers' name, on chains."""

FLOW_PREDICTIONS = {"flow_prediction": "flow", "sample": "denoised"}
"""And on the path of flow matching."""

FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
"""Schedulers that are of flow matching alone: their networks predict the flow. Others are with ``use_flow_sigmas``."""


@dataclass(frozen=True)
class Scheduled:
    """The process ``sde``, the ``parametrization`` of a network on it, which is told ``steps`` times t, the times
    ``levels`` of the scheduler's own steps, and what is worth knowing of it in words."""

    sde: SDE
    parametrization: str
    steps: float
    levels: Tensor
    about: dict[str, str] = field(default_factory=dict)


def read_scheduler(scheduler: Mapping[str, Any], facts: Facts) -> Scheduled:
    """What the config of a scheduler says; facts say it where there is none, {}. Raises ValueError for a fact that is
    missing or contradicts it, and for what has no process here."""

    def told(name: str, default: Any) -> Any:
        # A config of the library leaves out nothing, but those of older versions know less.
        return facts.settle(name, scheduler.get(name, default if scheduler else MISSING), type(default))

    name = str(scheduler.get("_class_name", facts.get("_class_name", "")))
    flows = scheduler.get("use_flow_sigmas", facts.get("use_flow_sigmas", False))
    if not scheduler:
        facts.require(dict.fromkeys(_needed(name, flows, facts), MISSING))
    if name in FLOWS or flows:
        return _flow(name, told)
    chain = _chain(name, scheduler, facts, told)
    predicted = facts.settle(
        "prediction_type", scheduler.get("prediction_type", "epsilon" if scheduler else MISSING), str
    )
    if predicted == "flow_prediction":
        raise ValueError("prediction_type = 'flow_prediction' with use_flow_sigmas = False: a flow is of flow matching")
    return Scheduled(chain, _one_of(predicted, PREDICTIONS), chain.steps - 1.0, chain.times.flip(0))


def _needed(name: str, flows: bool, facts: Facts) -> tuple[str, ...]:
    """The options that facts have to tell of a scheduler."""
    if name in FLOWS:
        return OF_HEUN if name == "FlowMatchHeunDiscreteScheduler" else OF_FLOW
    if flows:
        return OF_FLOW_SIGMAS
    return OF_BETAS if facts.get("trained_betas", None) else OF_CHAIN


def _one_of(predicted: str, known: Mapping[str, str]) -> str:
    if predicted not in known:
        raise ValueError(f"prediction_type = {predicted!r}: needs one of {', '.join(known)}")
    return known[predicted]


def _flow(name: str, told: Any) -> Scheduled:
    """The straight path from its noise, t = 1, to the scheduler's last level: t is their sigma, and their timestep t
    times the number of steps."""
    own = name in FLOWS
    predicted = "flow_prediction" if own else told("prediction_type", "epsilon")
    parametrization, steps = _one_of(predicted, FLOW_PREDICTIONS), told("num_train_timesteps", 1000)
    dynamic = name != "FlowMatchHeunDiscreteScheduler" and told("use_dynamic_shifting", False)
    if own and name != "FlowMatchHeunDiscreteScheduler" and told("invert_sigmas", False):
        raise ValueError(f"invert_sigmas = True: the network of this {name} is told a time that runs the other way")
    option = "shift" if own else "flow_shift"
    shift = told(option, 1.0)
    if not shift > 0:
        raise ValueError(f"{option} = {shift}: needs a number above 0")
    u = torch.arange(steps, 0, -1, dtype=torch.float64, device="cpu") / steps
    levels = u if dynamic else shift * u / (1 + (shift - 1) * u)
    grid = "flow:SHIFT, where SHIFT follows from the size of the items" if dynamic else f"flow:{shift:g}"
    return Scheduled(FlowSDE(t_min=levels[-1].item()), parametrization, float(steps), levels, {"grid": grid})


def _chain(name: str, scheduler: Mapping[str, Any], facts: Facts, told: Any) -> ChainSDE:
    """The chain of a scheduler's config, whose samplers are ours."""
    schedule = scheduler.get("beta_schedule", facts.told("beta_schedule"))
    if schedule is MISSING and scheduler:
        raise ValueError(
            f"the scheduler {name} has no betas, and no process here: those of chains have ({', '.join(SCHEDULES)}), "
            f"and those of flow matching ({', '.join(FLOWS)})"
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
