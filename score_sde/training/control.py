"""Controls before they are trained: the base that they are of, what describes them, and what does not fit."""

import torch

from score_sde.config.naming import with_keys
from score_sde.run.folder import Run
from sde import Denoiser
from sde.checkpoint.base import merged_spec
from sde.checkpoint.snapshots import stored_spec
from sde.checkpoint.spec import build_denoiser
from sde.checkpoint.transforms import build_transform
from sde.condition.tree import CONTROL
from sde.data import Dataset
from sde.data.controls import range_of
from sde.files import file_digest
from sde.networks.controlnet import ControlNet


def check_control(run: Run) -> bool:
    """Whether a run is to train a control. Raises ValueError for a control without a base, a base without a control,
    and what else would change the base."""
    control, base = run.config.data.control, run.config.control.base
    if control and not base:
        raise ValueError(
            f"config.data.control = {control!r}: a control is trained on a model that is already there; name its run "
            "folder, as in --base runs/digits, or set the control to nothing"
        )
    if base and not control:
        raise ValueError(
            f"--base={base}: nothing says what the control is; take a config that does, as --config digits_edges, or "
            "--config.data.control=edges"
        )
    if run.begins_with is not None and base and not run.begins_with.is_file():
        raise ValueError(f"--base={base} has no {run.begins_with.name}: needs a run that was trained or imported")
    if base and run.config.data.pairs:
        raise ValueError(f"config.data.pairs = {run.config.data.pairs!r}: a control is trained on items; leave it out")
    return bool(base)


def control_spec(run: Run, data: Dataset) -> dict:
    """What describes the model: its base's spec, with the control of the data and how its hint is encoded; of a run
    that goes on, its own."""
    begun, options, control = run.begins_with, run.config.control, run.config.data.control
    file = begun or next(path for path in (run.model_file, *run.checkpoints("denoiser").paths()) if path.exists())
    spec = stored_spec(file) if begun is None else merged_spec(stored_spec(file))
    _check_data(run, spec, data)
    if begun is None:
        return spec
    for key, what in ((CONTROL, "a control itself"), ("flow_map", "a student, which jumps and has no score")):
        if key in spec:
            raise ValueError(f"--base={options.base} holds {what}: name the run of a score model without a control")
    if run.config.training.cond_dropout > 0 and not spec["null_trained"]:
        raise ValueError(
            f"config.training.cond_dropout = {run.config.training.cond_dropout:g}: the model of --base={options.base} "
            "was never trained without its conditions; take 0"
        )
    mean, std = data.condition_moments[CONTROL]
    about = {
        "shape": list(data.condition_shapes[CONTROL]),
        "shift": mean.tolist(),
        "scale": torch.where(std > 0, std, 1.0).tolist(),
    }
    with with_keys("data"):
        limits = range_of(data, control)
    described = {
        "name": control,
        "range": list(limits),
        "hint_channels": list(options.hint_channels),
        "base": options.base,
        "sha256": file_digest(begun),
    }
    return spec | {"conditions": {**spec.get("conditions", {}), CONTROL: about}, CONTROL: described}


def control_model(run: Run, spec: dict, data: Dataset) -> Denoiser:
    """The model of ``control_spec``: that of the base, as long as nothing is trained."""
    model = build_denoiser(spec)
    if run.begins_with is not None:
        base = run.load(run.begins_with)
        network = model.network
        if isinstance(network, ControlNet):
            network.adopt(base.network)
        # What is beside the network, as a learned transform.
        rest = {name: value for name, value in base.state_dict().items() if not name.startswith("network.")}
        model.load_state_dict(rest, strict=False)
    print(f"a control of {run.config.control.base}, whose weights stay as they are")
    return model


def _check_data(run: Run, spec: dict, data: Dataset) -> None:
    """Refuse data that are not such as the base was trained on."""
    folder, shape = run.config.control.base, tuple(spec["event_shape"])
    if data.event_shape != shape:
        raise ValueError(f"--base={folder} has items of shape {shape}, the data {data.event_shape}: name its data")
    transform, own = build_transform(spec["transform"].get("outer", spec["transform"])), data.transform.outer
    if transform.digest != own.digest:
        raise ValueError(
            f"--base={folder} was trained with {transform}, the data now come with {own}: use the data of its "
            "training, or such in the same units"
        )
    held = [*(["labels"] if data.labels is not None else []), *data.conditions]
    needed = [*(["labels"] if spec["num_classes"] else []), *spec.get("conditions", {})]
    missing = [kind for kind in needed if kind not in held and kind != CONTROL]
    if missing:
        raise ValueError(
            f"--base={folder} is conditioned on {' and '.join(needed)}, and the data hold no {missing[0]}: name data "
            "that do, by config.data.conditions and config.data.root"
        )
