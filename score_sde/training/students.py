"""Students before they are trained: their method, their description, and what does not fit their teacher."""

from dataclasses import replace
from pathlib import Path

from samplers.grid import make_jumps
from score_sde.config.naming import with_keys
from score_sde.run.folder import Run
from score_sde.training.spec import denoiser_spec
from sde.checkpoint.base import merged_spec
from sde.checkpoint.models import load_transform
from sde.checkpoint.snapshots import stored_spec
from sde.checkpoint.spec import build_flow_map
from sde.checkpoint.transforms import build_transform
from sde.condition.tree import CONTROL, condition_kinds
from sde.data import Dataset
from sde.distillation import METHODS, FlowMap
from sde.distillation.method import Grid, Method, times_of
from sde.files import file_digest


def method_of(run: Run) -> Method:
    """The method of the config. Raises ValueError for options that it does not take, and where it has no teacher to
    ask."""
    distillation = run.config.distillation
    options = {name: value for name, value in distillation.method.items() if name != "name"}
    with with_keys("distillation.method"):
        method = METHODS[distillation.method.name](**options)
        method.stages()
    if method.needs_teacher and not distillation.teacher:
        raise ValueError(
            f"--method={distillation.method.name} asks a teacher: name its run folder, as in --teacher runs/digits"
        )
    if not method.needs_teacher and distillation.guidance_scale != (1.0,):
        scales = ",".join(f"{scale:g}" for scale in distillation.guidance_scale)
        raise ValueError(
            f"--guidance_scale={scales}: guides the teacher, and --method={distillation.method.name} learns from the "
            "data without asking it; leave it out"
        )
    return method


def taught(run: Run, method: Method) -> Run:
    """The run with what its config leaves to be found: the hash of the teacher's weights, which must stay, and the law
    of the times, which is the method's. Raises ValueError for weights that have changed."""
    config, distillation = run.config, run.config.distillation
    folder = distillation.teacher
    law = times_of(method)
    optimization = replace(
        config.training.optimization, time_distribution=law.name, time_mean=law.mean, time_std=law.std
    )
    config = replace(config, training=replace(config.training, optimization=optimization))
    if folder:
        weights = Path(folder) / Run.weights
        if not weights.is_file():
            raise ValueError(f"--teacher={folder} has no {Run.weights}: needs a run that was trained or imported")
        found = run.world.broadcast_from_main(lambda: file_digest(weights))
        if distillation.sha256 not in ("", found):
            raise ValueError(
                f"--teacher={folder}: its weights are not those with which the student in {run.folder} was begun; "
                "bring them back, or distill into a new --workdir"
            )
        teaching = replace(distillation.teaching, sha256=found)
        config = replace(config, distillation=replace(distillation, teaching=teaching))
    return replace(run, config=config, init=Path(folder) / Run.weights if folder else None)


def student_spec(run: Run, method: Method, data: Dataset) -> dict:
    """What describes the student: its teacher's spec, or without one that of the config, with how it is distilled and
    sampled."""
    distillation = run.config.distillation
    if distillation.teacher:
        spec = merged_spec(stored_spec(Path(distillation.teacher) / Run.weights))
        if CONTROL in spec:
            raise ValueError(
                f"--teacher={distillation.teacher} has a control, whose base is frozen and learns nothing: distill the "
                "base alone"
            )
        check_data(run, spec, data)
    else:
        spec = denoiser_spec(run.config, data)
    described = {
        "method": distillation.method.name,
        "teacher": distillation.teacher or None,
        "sha256": distillation.sha256 or None,
        "guidance": None if distillation.teaching.range is None else list(distillation.teaching.range),
        "guidance_scale": list(distillation.guidance_scale),
        "sampler": method.sampler,
        "grid": method.grid,
        "times": None,
    }
    own = getattr(method, "sampling_times", None)
    if own is not None:
        sde = build_flow_map(spec | {"flow_map": described}).sde
        described["times"] = own(sde, grid_of(method)).tolist()
    return spec | {"flow_map": described}


def grid_of(method: Method) -> Grid:
    """The grid that a method names, from the noise end itself where that is open, as flow maps are sampled."""
    return lambda sde, steps: make_jumps(sde, method.grid, steps)


def check_data(run: Run, spec: dict, data: Dataset) -> None:
    """Refuse data that are not those of the teacher."""
    folder = run.config.distillation.teacher
    shape, transform = tuple(spec["event_shape"]), build_transform(spec["transform"])
    if transform.learned:
        transform = load_transform(Path(folder) / Run.weights, run.allowed_imports) or transform
    if data.event_shape != shape:
        raise ValueError(f"--teacher={folder} has items of shape {shape}, the data {data.event_shape}: name its data")
    if data.transform.digest != transform.digest:
        raise ValueError(
            f"--teacher={folder} was trained with {transform}, the data now come with {data.transform}: use the data "
            "of its training"
        )


def check_guidance(run: Run, student: FlowMap) -> None:
    """Refuse guidance of a teacher without conditions, or that never trained its unconditional branch."""
    scales = run.config.distillation.guidance_scale
    if scales == (1.0,):
        return
    text = ",".join(f"{scale:g}" for scale in scales)
    if not condition_kinds(student):
        raise ValueError(
            f"--guidance_scale={text}: the teacher is unconditional, so there is nothing to guide; leave it out"
        )
    if not student.null_trained:
        raise ValueError(
            f"--guidance_scale={text}: the teacher never trained its unconditional branch "
            "(config.training.cond_dropout was 0); leave it out"
        )
