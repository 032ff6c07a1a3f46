"""Low-rank updates before they are trained: their base, and data that do not fit it."""

from score_sde.run.folder import Run
from sde import Denoiser
from sde.checkpoint.base import find_base, own_weights, with_base
from sde.condition.tree import condition_kinds
from sde.data import Dataset


def check_has_base(run: Run) -> None:
    """Raise ValueError where there are to be updates, and nothing that is updated."""
    rank = run.config.model.lora_rank
    if rank and "base" not in run.inherited:
        raise ValueError(
            f"config.model.lora_rank = {rank}: low-rank updates are of weights that are trained already; name their "
            "run with --init"
        )


def begin_with_base(run: Run, model: Denoiser, spec: dict, data: Dataset) -> None:
    """Load the weights of the base into a model with updates. Raises ValueError where the base is not there, and for
    data of classes or conditions that it does not know."""
    file = find_base(run.model_file, spec["base"])
    base = run.load(file).state_dict()
    model.load_state_dict(with_base(own_weights(spec, model.state_dict()), base, model))
    _check_fits(run, model, data)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(
        f"low-rank updates of the weights in {file}: {trained:,} parameters, rank {spec['lora']['rank']}, beside "
        f"{sum(value.numel() for value in base.values()):,} that stay as they are"
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
