"""--mode distill: a student of one to a few steps, into a run folder, continued by the same command."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from samplers import SAMPLERS, generate
from samplers.grid import make_jumps
from samplers.progress import Progress
from score_sde.config.naming import with_keys
from score_sde.evaluation.validation import Validation
from score_sde.modes.train import PREVIEW_SAMPLES, held, refuse_overwriting, seeded, write_preview
from score_sde.run.conditions import held_out_condition
from score_sde.run.folder import Run, file_digest
from score_sde.run.sizes import sizes_of_samples
from score_sde.training.compiling import settle_compiling
from score_sde.training.precision import settle
from score_sde.training.session import Session
from score_sde.training.spec import denoiser_spec
from sde.checkpoint.models import load_model
from sde.checkpoint.snapshots import stored_spec
from sde.checkpoint.spec import build_flow_map, build_transform
from sde.condition.tree import Condition, condition_kinds, restrict_to
from sde.data import Dataset
from sde.distillation import METHODS, FlowMap, SolvedTeacher
from sde.distillation.guided import guided_teacher
from sde.distillation.method import Grid, Method, times_of
from sde.distillation.trainer import DistillationLoss, StudentTrainer
from sde.training.augmentation import Augmentation
from sde.training.trainer import StepResult, check_batch

TEACHER = {"teacher": "--teacher", "guidance_scale": "--guidance_scale"}
"""What the config calls them are flags."""


def distill(
    run: Run,
    *,
    teacher: str | None = None,
    method: str | None = None,
    guidance_scale: tuple[float, ...] = (1.0,),
) -> dict:
    """Train a student that jumps from noise to data in one to a few steps, from a teacher's weights.

    The flags are in the config of the run, which tells a command that goes on.
    """
    del teacher, method, guidance_scale
    refuse_overwriting(run, "denoiser", run.model_file, "name another --workdir")
    trained = method_of(run)
    run = taught(run, trained)
    teaching, settings = run.config.distillation.teaching, run.config.training
    data, held_out = run.data()
    with with_keys("training"):
        check_batch(settings.optimization, data)
    spec = student_spec(run, trained, data)
    augmentation = Augmentation(
        settings.augmentation, settings.augmentation_probability, spec["network"].get("augment_dim", 0)
    )
    with with_keys("training", "model.network"):
        augmentation.check(data.event_shape, data.sizes is not None, [*spec.get("conditions", ())])
    with with_keys("model", "model.network", "sde"):
        student = seeded(settings.seed, build_flow_map, spec)
    solved = None
    if teaching.teacher:
        denoiser = load_model(Path(teaching.teacher) / Run.weights, "denoiser", run.allowed_imports)
        # What is told further has no weights yet, and stays as it was built.
        student.load_state_dict({**student.state_dict(), **denoiser.state_dict()})
        denoiser = denoiser.to(run.device).requires_grad_(False)
        if getattr(trained, "distilled", trained.needs_teacher):
            solver: Any = SAMPLERS[teaching.solver]()
            solved = SolvedTeacher(guided_teacher(denoiser, teaching.guidance_scale[0]), solver)
    student = student.to(run.device)
    check_guidance(run, student)

    def augment(x0: Tensor, cond: Condition | None, seeds: Tensor) -> tuple[Tensor, Condition | None]:
        return augmentation(x0, restrict_to(cond, student), seeds)

    loss = DistillationLoss(trained, solved, grid_of(trained), augment, settings.cond_dropout)
    spare = copy.deepcopy(student)
    run = run.with_speed(settle(run, student, data, loss))
    run = run.with_speed(settle_compiling(run, student, data, loss))
    if solved is not None:
        denoiser.autocast = student.autocast
    with with_keys("training", "distillation.method"):
        trainer = StudentTrainer(student, spare, loss, data, settings.optimization, run.world, run.config.data.workers)
    session = Session(run, trainer, "denoiser", run.model_file, spec, "flow_map")
    validation = Validation(
        held_out, data, student.sde, settings.optimization.times, settings.loss_weighting, device=run.device
    )

    def sample(step: int, done: StepResult) -> None:
        averaged = session.averaged()
        with session.tolerated("a preview"):
            run.world.broadcast_from_main(lambda: preview(step, held(averaged, FlowMap)))

    def preview(step: int, averaged: FlowMap) -> None:
        cond = held_out_condition(held_out, averaged, PREVIEW_SAMPLES)
        sizes = sizes_of_samples(run, PREVIEW_SAMPLES, 0)
        about = spec["flow_map"]
        times = about["times"] or make_jumps(averaged.sde, about["grid"], 2)
        sampler: Any = SAMPLERS[about["sampler"]]()
        try:
            samples = generate(
                averaged.bound(cond), sampler, PREVIEW_SAMPLES, data.event_shape, grid=times, sizes=sizes
            )
        except FloatingPointError as error:
            Progress.write(f"warning: no samples at step {step} ({error}): try a smaller config.training.lr")
        else:
            session.record({"step": step, "stage": trainer.stage + 1, "nearest": validation.nearest(samples.x)})
            write_preview(run, samples, cond, step, data)
        session.report()

    session.fit([(settings.sample_every, sample)])
    return session.summary("distill") | {"method": run.config.distillation.method.name, "stages": len(trainer.stages)}


def method_of(run: Run) -> Method:
    """The method of the config. Raises ValueError for options that it does not take, and where it has no teacher to
    ask."""
    distillation = run.config.distillation
    options = {name: value for name, value in distillation.method.items() if name != "name"}
    with with_keys("distillation.method"):
        method = METHODS[distillation.method.name](**options)
        method.stages()
    asks = getattr(method, "distilled", method.needs_teacher)
    if asks and not distillation.teacher:
        raise ValueError(
            f"--method={distillation.method.name} asks a teacher: name its run folder, as in --teacher runs/digits"
        )
    if not asks and distillation.guidance_scale != (1.0,):
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
        spec = stored_spec(Path(distillation.teacher) / Run.weights)
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
    shape, transform = tuple(spec["event_shape"]), build_transform(spec["transform"])
    folder = run.config.distillation.teacher
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
