"""--mode distill: a student of one to a few steps, into a run folder, continued by the same command."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

from samplers import SAMPLERS, generate
from samplers.progress import Progress
from score_sde.config.naming import with_keys
from score_sde.evaluation.validation import Validation
from score_sde.modes.train import PREVIEW_SAMPLES, held, refuse_overwriting, seeded, write_preview
from score_sde.run.conditions import held_out_condition
from score_sde.run.folder import Run
from score_sde.run.latents import give_transform
from score_sde.run.sizes import sizes_of_samples
from score_sde.run.students import usual_sampling
from score_sde.training.augmenting import augmentation_of
from score_sde.training.compiling import settled
from score_sde.training.latents import cached_latents
from score_sde.training.rehearsal import Rehearsal
from score_sde.training.session import Session
from score_sde.training.students import check_guidance, grid_of, method_of, student_spec, taught
from sde.checkpoint.models import load_model
from sde.checkpoint.spec import build_flow_map
from sde.condition.tree import restrict_to
from sde.distillation import FlowMap, SolvedTeacher
from sde.distillation.teacher import guided_teacher
from sde.distillation.trainer import DistillationLoss, StudentTrainer
from sde.training.trainer import StepResult, check_batch


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
    augmentation = augmentation_of(run, spec, data)
    with with_keys("model", "model.network", "sde"):
        student = seeded(settings.seed, build_flow_map, spec)
    give_transform(student, data)
    solved = None
    if teaching.teacher:
        denoiser = load_model(Path(teaching.teacher) / Run.weights, "denoiser", run.allowed_imports)
        # What is told further has no weights yet, and stays as it was built.
        student.load_state_dict({**student.state_dict(), **denoiser.state_dict()})
        denoiser = denoiser.to(run.device).requires_grad_(False)
        if trained.needs_teacher:
            solver: Any = SAMPLERS[teaching.solver]()
            solved = SolvedTeacher(guided_teacher(denoiser, teaching.guidance_scale[0]), solver)
    student = student.to(run.device)
    check_guidance(run, student)

    if run.config.data.cache_latents:
        data = cached_latents(run, data)
    restrict = partial(restrict_to, model=student)
    loss = DistillationLoss(trained, solved, grid_of(trained), restrict, settings.cond_dropout)
    spare = copy.deepcopy(student)
    run = settled(Rehearsal(run, student, data, loss, settings.optimization, augmentation))
    if solved is not None:
        denoiser.autocast = student.autocast
    with with_keys("training"):
        workers = run.config.data.workers
        trainer = StudentTrainer(student, spare, loss, data, settings.optimization, run.world, workers, augmentation)
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
        sampler, times = usual_sampling(spec["flow_map"], averaged.sde)
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
