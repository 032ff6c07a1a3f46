"""--mode import: a run folder of weights that another project trained."""

import math
import warnings
from dataclasses import replace
from pathlib import Path

from score_sde.config.config import resolve
from score_sde.config.naming import with_keys
from score_sde.run.folder import Run
from sde.checkpoint.models import save_model
from sde.checkpoint.snapshots import stored_spec
from sde.checkpoint.spec import describe_foreign
from sde.checkpoint.transforms import build_transform
from sde.data import existing
from sde.data.transform import Transform, TransformLike
from sde.files import read_json
from sde.model.classifier import NoisyClassifier
from sde.pretrained import read_pretrained
from sde.pretrained.foreign import Foreign

FLAGS = {"source": "--source", "weights": "--weights", "facts": "--facts"}
"""What the library calls what is told of foreign weights is the flag."""


def import_weights(
    run: Run, *, pretrained: str = "", source: str = "auto", weights: str = "ema", facts: str | None = None
) -> dict:
    """Make a run folder of weights that another project trained.

    It is an ordinary run: every mode works on it that its data, ``config.data``, allow. A classifier goes into the
    folder of a model. Nothing that the weights' file names is run.
    """
    if not pretrained:
        raise ValueError("--pretrained is needed: the file or folder of the weights")
    if run.config.data.root:
        # What follows would not look at the data, and the folder is made once.
        existing(run.config.data.root, "--config.data.root")
    with with_keys(**FLAGS):
        foreign = read_pretrained(pretrained, source, weights, _facts(facts))
        if foreign.unsized:
            raise ValueError(foreign.unsized)
        model = foreign.build()
    spec = describe_foreign(foreign, model)
    parameters = sum(p.numel() for p in model.parameters())
    if isinstance(model, NoisyClassifier):
        _check_fits(run, foreign)
        save_model(run.classifier_file, "classifier", spec, model.state_dict(), run.world)
    else:
        if (run.folder / "config.json").exists():
            raise ValueError(f"--workdir={run.folder} holds a run already: name another one")
        values = run.config.to_dict()
        values["model"] |= {name: spec[name] for name in ("network", "parametrization", "sigma_data")}
        values["sde"] = spec["sde"]
        values["data"]["event_shape"] = spec["event_shape"]
        if values["data"]["dataset"] == "points":
            # Arrays do not say it themselves.
            values["data"]["num_levels"] = foreign.transform.num_levels or 0
        values["model"]["conditional"] = bool(foreign.num_classes)
        config = resolve(values, [])
        save_model(run.model_file, "denoiser", spec, model.state_dict(), run.world)
        # Last, as a folder without it is no run.
        run.world.broadcast_from_main(replace(run, config=config).write_config)
    if foreign.assumed:
        # Not before all that may be refused.
        warnings.warn(foreign.assumed, stacklevel=2)
    classes = f", {foreign.num_classes} classes" if foreign.num_classes else ""
    own_grid = f", its own grid {foreign.origin['grid']}" if "grid" in foreign.origin else ""
    lowest, highest = (foreign.sde.noise_level(t).item() for t in (foreign.sde.t_min, foreign.sde.t_max))
    highest = math.inf if foreign.sde.open_end else highest
    print(
        f"{foreign.origin['file']}: {foreign.network['name']}, {parameters:,} parameters, items of shape "
        f"{foreign.event_shape}{classes}, {type(foreign.sde).__name__} with noise levels from {lowest:.3g} to "
        f"{highest:.3g}{own_grid}, in {run.folder}\nof {foreign.origin['project']}"
    )
    return {
        "mode": "import",
        "workdir": str(run.folder),
        "kind": "classifier" if foreign.classifier else "denoiser",
        "parameters": parameters,
        "event_shape": list(foreign.event_shape),
        "num_classes": foreign.num_classes,
        "origin": foreign.origin,
    }


def _facts(path: str | None) -> dict:
    if path is None:
        return {}
    try:
        found = read_json(Path(path))
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
    except (ValueError, OSError) as error:
        raise ValueError(
            f'--facts={path}: {error}; needs a JSON file of names and values, as {{"sigma_max": 50}}'
        ) from None
    return found


def _check_fits(run: Run, foreign: Foreign) -> None:
    """Refuse a classifier that there is no model for in the folder."""
    if not run.model_file.exists():
        raise ValueError(
            f"{foreign.origin['file']} is a classifier: import the model that it is to guide into "
            f"--workdir={run.folder} first"
        )
    if run.classifier_file.exists():
        raise ValueError(f"{run.classifier_file} exists already: move it away first")
    if run.event_shape != foreign.event_shape:
        raise ValueError(
            f"{foreign.origin['file']} takes items of shape {foreign.event_shape}, the model in {run.folder} makes "
            f"{run.event_shape}"
        )
    # The process may be another, which guidance allows for.
    spec = stored_spec(run.model_file)
    transform = build_transform(spec["transform"])
    if transform.learned or not _alike(transform.outer, foreign.transform):
        raise ValueError(
            f"{foreign.origin['file']} sees {_units(foreign.transform)}, the model in {run.folder} {_units(transform)}"
            ": guidance needs both in the same units"
        )
    if spec["num_classes"] not in (None, foreign.num_classes):
        raise ValueError(
            f"{foreign.origin['file']} knows {foreign.num_classes} classes, the model in {run.folder} "
            f"{spec['num_classes']}: guidance needs the same"
        )


def _alike(one: Transform, other: Transform) -> bool:
    """Whether two transforms differ by less than a hundredth, as those do of pixels by their cells and by the middles
    of these."""
    if len(one.shift) != len(other.shift):
        return False
    least = 0.01 * min(*one.scale, *other.scale)
    pairs = zip((*one.shift, *one.scale), (*other.shift, *other.scale), strict=True)
    return all(abs(a - b) <= least for a, b in pairs)


def _units(transform: TransformLike) -> str:
    if not isinstance(transform, Transform):
        return str(transform)
    return f"(x - shift) / scale with shift {transform.shift} and scale {transform.scale}"
