"""--mode ema: averages of other lengths, rebuilt from the snapshots of a run and compared on held-out data."""

from score_sde.config.naming import with_keys
from score_sde.evaluation.validation import Validation
from score_sde.run.folder import Run
from score_sde.run.inputs import read_floats
from score_sde.run.items import open_split
from sde import Denoiser
from sde.checkpoint.models import save_model
from sde.checkpoint.snapshots import DOUBTFUL_ERROR, find_snapshots, reconstruct, solve, stored_spec

LENGTHS = "numbers with commas between them, as in 0.03,0.05,0.1"
DEFAULT_LENGTHS = "0.03,0.04,0.05,0.07,0.1,0.14"


def reconstruct_ema(run: Run, *, relative_std: str = DEFAULT_LENGTHS, at_step: int | None = None) -> dict:
    """Rebuild averages of other lengths into ema/ of the run folder, and compare their held-out losses.

    They are those of a step, by default the newest; beside them are the run's model and its other averages. All lengths
    are checked before work starts. Lengths that come with a warning are never called the best.
    """
    if run.student is not None:
        raise ValueError(
            f"--workdir={run.folder} holds a student, and averages are compared by the held-out loss of a score model: "
            "distill with --config.training.extra_ema_decays=0.99, and judge each by --mode evaluate --weights "
            "ema/0.99.safetensors"
        )
    folder, lengths = run.folder / "ema", read_floats("--relative_std", relative_std, LENGTHS)
    snapshots = find_snapshots(folder)
    if not snapshots:
        raise ValueError(
            f"{folder} has no power-*.safetensors to rebuild averages from: train with "
            "--config.training.power_ema_stds=0.05,0.1"
        )
    step = snapshots[-1].step if at_step is None else at_step
    with with_keys("training"):
        errors = {length: solve(snapshots, length, step)[1] for length in lengths}
    held_out, training, denoiser = open_split(run, "test")
    settings = run.config.training
    validation = Validation(
        held_out, training, denoiser.sde, settings.optimization.times, settings.loss_weighting, device=run.device
    )
    held = sorted({snapshot.relative_std for snapshot in snapshots})
    print(
        f"averages at step {step} from {len(snapshots)} snapshots of relative standard deviation "
        f"{', '.join(map(str, held))}; held-out loss of each at the same times and noise:\n"
        f"{'weights':<40}{'profile error':>14}{'held-out loss':>15}"
    )
    losses: dict[str, float] = {}
    doubtful: set[str] = set()

    def measure(name: str, model: Denoiser, error: float | None = None) -> None:
        losses[name] = validation.losses(model)["loss"]
        print(f"{name:<40}{'' if error is None else f'{error:.1%}':>14}{losses[name]:>15.5f}")

    measure(run.model_file.name, denoiser)
    for path in sorted(folder.glob("0.*.safetensors")):
        measure(f"ema/{path.name}", run.load(path).to(run.device))
    for length, error in sorted(errors.items()):
        path = folder / f"rebuilt-{length}-{step:08d}.safetensors"
        state = reconstruct(snapshots, length, step, imports=run.allowed_imports)
        save_model(path, "denoiser", stored_spec(snapshots[-1].path), state)
        measure(f"ema/{path.name}", run.load(path).to(run.device), error)
        if error > DOUBTFUL_ERROR:
            doubtful.add(f"ema/{path.name}")
    # Of a length that the snapshots do not tell well the loss is that of another average.
    best = min(losses.keys() - doubtful, key=lambda name: losses[name])
    print(f"best: {best}" + (f", which --weights {best} selects in the other modes" if best.startswith("ema") else ""))
    return {
        "mode": "ema",
        "step": step,
        "snapshots": len(snapshots),
        "best": best,
        "held_out_loss": losses,
        "profile_error": {str(length): error for length, error in sorted(errors.items())},
    }
