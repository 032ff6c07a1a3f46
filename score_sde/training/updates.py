"""Low-rank updates before they are trained: their base, and data that do not fit it."""

import json
from dataclasses import asdict
from pathlib import Path

from score_sde.run.folder import Run
from sde import Denoiser
from sde.checkpoint.base import describe_pipeline, find_base, own_weights, with_base
from sde.checkpoint.spec import describe_sde
from sde.condition.tree import condition_kinds
from sde.data import Dataset
from sde.networks.lora import LoRA, add_low_rank


def check_has_base(run: Run) -> None:
    """Raise ValueError where there are to be updates, and nothing that is updated."""
    rank = run.config.model.lora_rank
    if run.loaded is not None:
        if not rank:
            raise ValueError(
                f"--init={run.loaded.source} is a pipeline, of which low-rank updates are trained alone: add "
                "--config.model.lora_rank=8"
            )
        return
    if rank and run.begins_with is None and "base" not in run.spec:
        raise ValueError(
            f"config.model.lora_rank = {rank}: low-rank updates are of weights that are trained already; name their "
            "run with --init"
        )


def pipeline_spec(run: Run, data: Dataset) -> dict:
    """What describes a model of low-rank updates of a pipeline; of a run that goes on, its own. Raises ValueError for
    data of another size than its pictures."""
    known, loaded, lora = run.spec, run.loaded, run.config.model.updates.lora
    if known or loaded is None or lora is None:
        return known
    model = loaded.model
    if data.event_shape != model.event_shape:
        raise ValueError(
            f"--init={loaded.source} draws items of shape {model.event_shape}, and the data have {data.event_shape}: "
            "bring them to one size by config.data.resolution"
        )
    spec = {
        "network": {"name": "pipeline"},
        "event_shape": list(data.event_shape),
        "num_classes": None,
        "sde": describe_sde(model.sde),
        "parametrization": model.parametrization,
        "sigma_data": model.sigma_data,
        "null_trained": True,
        "about": data.about,
        "origin": {**loaded.pipeline.origin, "init": loaded.source},
        "levels": loaded.pipeline.levels.tolist(),
        "lora": asdict(lora),
        "base": describe_pipeline(Path(loaded.source), data.event_shape[1:]),
    }
    return json.loads(json.dumps(spec))


def pipeline_with_updates(run: Run, spec: dict, data: Dataset) -> Denoiser:
    """The model of ``pipeline_spec``: the pipeline, as long as nothing is trained."""
    if run.loaded is None:
        raise TypeError("the run is not one of a pipeline")
    model = run.loaded.model
    add_low_rank(model.network, LoRA(**spec["lora"]))
    _say(model, spec, run.loaded.source)
    return model


def begin_with_base(run: Run, model: Denoiser, spec: dict, data: Dataset) -> None:
    """Load the weights of the base into a model with updates. Raises ValueError where the base is not there, and for
    data of classes or conditions that it does not know."""
    file = find_base(run.model_file, spec["base"])
    base = run.load(file).state_dict()
    model.load_state_dict(with_base(own_weights(spec, model.state_dict()), base, model))
    _check_fits(run, model, data)
    _say(model, spec, file)


def _say(model: Denoiser, spec: dict, base: Path | str) -> None:
    trained, held = (sum(p.numel() for p in model.parameters() if p.requires_grad is on) for on in (True, False))
    print(
        f"low-rank updates of the weights in {base}: {trained:,} parameters, rank {spec['lora']['rank']}, beside "
        f"{held:,} that stay as they are"
    )


def _check_fits(run: Run, model: Denoiser, data: Dataset) -> None:
    rank = f"config.model.lora_rank = {run.config.model.lora_rank}"
    if data.num_classes and model.num_classes and data.num_classes > model.num_classes:
        raise ValueError(
            f"{rank}: the weights that are updated know {model.num_classes} classes, the data have {data.num_classes}; "
            "train all weights, with config.model.lora_rank=0, for classes that are new"
        )
    wanted = condition_kinds(model)
    given = [kind for kind in wanted if kind in data.condition_shapes or (kind == "labels" and data.num_classes)]
    if given and len(given) < len(wanted):
        raise ValueError(
            f"{rank}: the weights that are updated are conditioned on {' and '.join(wanted)}, the data have "
            f"{' and '.join(given)} alone: give all of them by config.data.conditions, or none"
        )
