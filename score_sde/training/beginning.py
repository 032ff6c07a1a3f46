"""What training begins with: weights drawn anew or of another run, or frozen ones with what is trained beside them."""

from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

from score_sde.run.folder import Run
from score_sde.run.latents import give_transform
from score_sde.training.control import check_control, control_model, control_spec
from score_sde.training.spec import denoiser_spec
from score_sde.training.updates import begin_with_base, check_has_base, pipeline_spec, pipeline_with_updates
from sde import Denoiser
from sde.checkpoint.base import describe_base
from sde.checkpoint.initial import begin_with
from sde.checkpoint.spec import build_denoiser
from sde.data import Dataset

OF_THE_BASE = ("num_classes", "conditions", "null_trained", "text", "control")
"""What a model of low-rank updates has of its base's spec beside what every model has of the one it began with."""


class Beginning(NamedTuple):
    """How a model is described and built before it is trained: ``spec(run, data)``, and ``model(run, spec, data)``, on
    the CPU. Each raises ValueError for data that do not fit."""

    spec: Callable[[Run, Dataset], dict]
    model: Callable[[Run, dict, Dataset], Denoiser]


def beginning_of(run: Run) -> Beginning:
    """That of a control of a base, of low-rank updates of a pipeline or of a run, or of all weights. Raises ValueError
    for a base that is not there, and where the options ask for two of them."""
    if check_control(run):
        return Beginning(control_spec, control_model)
    check_has_base(run)
    if run.loaded is not None:
        return Beginning(pipeline_spec, pipeline_with_updates)
    return Beginning(_spec, _model_of_updates if run.config.model.lora_rank else _model)


def _spec(run: Run, data: Dataset) -> dict:
    return denoiser_spec(run.config, data, inherited(run))


def inherited(run: Run) -> dict:
    """What a model that began with other weights has of them beside its config; nothing where it began anew."""
    spec, begins = run.spec, run.begins_with
    origin = spec.get("origin")
    if begins is not None:
        origin = (origin or {}) | {"init": str(begins.parent)}
    if origin is None:
        return {}
    own: tuple[str, ...] = ("noise_input", "scaled_input", "sigma_data", "levels")
    updates = {}
    if (lora := run.config.model.updates.lora) is not None:
        own += OF_THE_BASE
        base = spec.get("base") if begins is None else describe_base(begins)
        updates = {"lora": asdict(lora), "base": base, "conditions": {}}
    return {"origin": origin, **updates, **{name: spec[name] for name in own if name in spec}}


def _model_of_updates(run: Run, spec: dict, data: Dataset) -> Denoiser:
    model = _anew(spec, data)
    begin_with_base(run, model, spec, data)
    return model


def _model(run: Run, spec: dict, data: Dataset) -> Denoiser:
    model, begins = _anew(spec, data), run.begins_with
    if begins is not None:
        print(f"training begins with the weights of {begins.parent}")
        for reason in begin_with(model, spec, begins, run.allowed_imports).values():
            print(f"started anew, as classes or conditions are others: {reason}")
    return model


def _anew(spec: dict, data: Dataset) -> Denoiser:
    """A model with what its data come with: the text encoder and the transform."""
    model = build_denoiser(spec)
    if model.text is not None and data.text is not None:
        model.text.load_state_dict(data.text.state_dict())
    give_transform(model, data)
    return model
