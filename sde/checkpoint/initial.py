"""Initial weights: training that begins with those of another model."""

from collections.abc import Collection
from pathlib import Path

from torch import Tensor, nn

from sde.checkpoint.models import load_model
from sde.checkpoint.spec import build


def begin_with(module: nn.Module, spec: dict, path: Path, imports: Collection[str] = ()) -> dict[str, str]:
    """Load the weights of the model file ``path`` into a denoiser that was built of ``spec``.

    What belongs to the classes and conditions alone, where those are others, stays as it is: returned is why, by name.
    ``imports`` as in ``load_model``. Raises ValueError, with the first three names, where anything else does not fit.
    """
    other = load_model(path, "denoiser", imports)
    theirs, ours = other.state_dict(), module.state_dict()
    unlike = _unlike(ours, theirs)
    told = {"num_classes": other.num_classes, "conditions": _conditions(other)}
    like = {**spec, **told, "text": None if other.text is None else other.text.describe()}
    as_theirs = build("denoiser", like).state_dict() if unlike else {}
    alone = unlike.keys() - _unlike(ours, as_theirs).keys()
    if alone:
        more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
        raise ValueError(
            f"init = {path}: its weights do not fit this model: "
            f"{'; '.join(unlike[name] for name in sorted(alone)[:3])}{more}"
        )
    module.load_state_dict({name: theirs[name] for name in ours if name not in unlike}, strict=False)
    return {name: unlike[name] for name in ours if name in unlike}


def _conditions(model) -> dict:
    return {kind: {"shape": list(shape), "shift": [0.0], "scale": [1.0]} for kind, shape in model.conditions.items()}


def _unlike(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, str]:
    """The names that are not in both, or of another shape, with why."""

    def shape(state: dict[str, Tensor], name: str, place: str) -> str:
        return f"{tuple(state[name].shape)} {place}" if name in state else f"not {place}"

    return {
        name: f"{name} is {shape(theirs, name, 'there')}, {shape(ours, name, 'here')}"
        for name in {**ours, **theirs}
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape
    }
