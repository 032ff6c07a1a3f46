"""What each process does in test_parallel."""

import copy
import io
import json
import os
import signal
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch

from score_sde.cli import main
from score_sde.evaluation.judge import SETTINGS
from sde import VPSDE
from sde.autoencoder import KLAutoencoder, LatentTransform, in_latents
from sde.autoencoder.loss import AutoencoderLoss
from sde.checkpoint.spec import build_denoiser, describe_sde
from sde.checkpoint.states import Checkpoints
from sde.data import Dataset, sets
from sde.data.toys import labeled_toys
from sde.data.transform import Transform
from sde.distillation import FlowMap
from sde.distillation.meanflow import MeanFlow
from sde.distillation.method import Lesson
from sde.distributed.world import World
from sde.training.fit import fit
from sde.training.loss import denoising_loss
from sde.training.options import TrainingOptions
from sde.training.reconstruction import AutoencoderTrainer, ReconstructionLoss
from sde.training.trainer import Trainer
from sde.training.uncertainty import UncertaintyWeighting
from tests.score_sde.runs import without_rendering

# Two processes cannot share odd widths evenly. (Without attention: the bias of its keys has a gradient of rounding
# errors alone, of which Adam makes steps.)
NETWORK = {"name": "mlp", "width": 7, "layers": 2, "dropout": 0.0}
SPEC = {
    "event_shape": [1, 3, 3],
    "num_classes": 2,
    "sde": describe_sde(VPSDE()),
    "parametrization": "edm",
    "sigma_data": 1.0,
    "transform": {"shift": [0.0], "scale": [1.0], "levels": None},
    "null_trained": True,
}
CONTROL = SPEC | {
    "network": {"name": "unet", "channels": 8, "num_res_blocks": 1, "channel_mult": [1]},
    "conditions": {"control": {"shape": [1, 3, 3], "shift": [0.5], "scale": [0.5]}},
    "control": {"hint_channels": [3]},
}
LATENT = SPEC | {
    "transform": {
        "autoencoder": {"name": "linear", "event_shape": [1, 3, 3], "latent_shape": [1, 2, 3]},
        "outer": SPEC["transform"],
    }
}
OPTIONS = {"steps": 20, "batch_size": 12, "warmup_steps": 5, "lr": 1e-2, "optimizer": "adamw", "weight_decay": 0.1}
CASES = {
    "plain": {},
    "accumulated": {"gradient_accumulation": 3},
    "clipped": {"max_grad_norm": 0.05},
    "skipping": {"spoilt": True},
    # Of which most is frozen.
    "controlled": {"controlled": True},
    # With a frozen autoencoder, whose posteriors are drawn from.
    "latent": {"latent": True},
}
ALONE = {
    "uncertain": {"gradient_accumulation": 3, "uncertain": True},
    # Its losses take derivatives in forward mode, through what averages the gradients.
    "meanflow": {"gradient_accumulation": 3, "student": True},
    # It has no network within, and is replicated as a whole. Behind norms some gradients are rounding errors alone, of
    # which Adam would make steps.
    "autoencoder": {"gradient_accumulation": 3, "autoencoder": True, "adam_eps": 1e-4},
}
"""Cases in which nothing is split."""

POINTS = ["--mode", "train", "--config", "points", "--config.training.batch_size=64",
          "--config.training.gradient_accumulation=2", "--config.training.log_every=1",
          "--config.training.checkpoint_every=8",
          "--config.training.power_ema_stds=0.1,", "--config.model.network.width=16",
          "--config.model.network.layers=2"]  # fmt: skip
STUDENT = ["--mode", "distill", "--method", "progressive", "--guidance_scale", "1,3",
           "--config.distillation.method.first_steps=2", "--config.training.steps=6",
           "--config.training.checkpoint_every=4", "--config.training.sample_every=6"]  # fmt: skip
"""Of two stages, from the run of POINTS."""
STEPS = ["--config.training.steps=12", "--config.training.sample_every=12"]
USES = {
    "sample": ["--num_samples", "7", "--steps", "4", "--sampler", "pc", "--batch_size", "3"],
    "single": ["--mode", "sample", "--num_samples", "1", "--sampler", "ode"],
    "planned": ["--mode", "sample", "--num_samples", "5", "--sampler", "auto", "--steps", "4"],
    "likelihood": ["--num_samples", "9", "--batch_size", "2", "--probes", "2"],
    "encode": ["--num_samples", "5"],
    "interpolate": ["--frames", "3"],
    "evaluate": [
        "--num_samples",
        "60",
        "--steps",
        "2",
        "--batch_size",
        "7",
        "--subsamples",
        "2",
        "--features",
        "classifier",
        "--metrics",
        "energy,sliced_wasserstein,density",
    ],
}


def trainer(
    world: World,
    parallel: str,
    spoilt: bool = False,
    width: int = 7,
    uncertain: bool = False,
    student: bool = False,
    controlled: bool = False,
    autoencoder: bool = False,
    latent: bool = False,
    **options,
) -> Trainer:
    """A small one. ``spoilt``: in step 2 some losses of the second half of the batch are not finite, and in step 4 the
    gradients of some in the first half, at finite losses. ``student``: a flow map, trained by MeanFlow. ``controlled``:
    the control of a U-Net. ``autoencoder``: one of these. ``latent``: a denoiser in the latents of one."""
    torch.manual_seed(0)
    spec = LATENT if latent else SPEC
    model = build_denoiser(CONTROL if controlled else {**spec, "network": {**NETWORK, "width": width}})
    model = FlowMap.of(model) if student else model
    if controlled:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(40, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    control = {"control": lambda items: (items > 0).float()} if controlled else {}
    data = Dataset(x, torch.arange(40) % 2, 2, Transform(), control)
    if isinstance(model.transform, LatentTransform):
        model.transform.autoencoder.std.fill_(0.3)
        model.transform.autoencoder.noise_std.fill_(1.0)
        data = in_latents(data, copy.deepcopy(model.transform))

    def loss(module, x0, labels, draws):
        if student:
            return MeanFlow().loss(module, x0, labels, draws, Lesson())
        losses = denoising_loss(module, x0, labels, draws, cond_dropout=0.3)
        bad = (draws.seeds % 7 == 0,)
        if spoilt and run.step == 1:
            losses = losses.index_put(bad, torch.tensor(torch.nan))
        if spoilt and run.step == 3:
            losses = losses.index_put(bad, losses[bad] + (losses[bad].detach() - losses[bad]).sqrt())
        return losses

    own = TrainingOptions(**OPTIONS | options, parallel=parallel)
    if autoencoder:
        coder = KLAutoencoder((1, 3, 3), channels=6, latent_channels=2)
        # What was never measured is NaN, which equals nothing.
        coder.noise_std.fill_(1.0)
        return AutoencoderTrainer(coder, data, ReconstructionLoss(AutoencoderLoss()), own, world)
    uncertainty = UncertaintyWeighting(model.sde) if uncertain else None
    run = Trainer(model, data, loss, own, world, uncertainty=uncertainty)
    return run


def weights(run: Trainer) -> dict:
    """The weights and their average, in the first process."""
    average = run.world.collect(run.ema.module_state(run.module))
    own = {} if run.uncertainty is None else run.uncertainty.state_dict()
    return run.world.collect(run.module.state_dict() | {f"uncertainty {name}": v for name, v in own.items()}) | {
        f"average {name}": v for name, v in average.items()
    }


def advance(run: Trainer, step: int) -> Trainer:
    """Train up to a step."""
    fit(run, [], read_every=1, stop=lambda: run.step >= step)
    return run


def curve(run: Trainer) -> dict:
    """Loss, norm of the gradient and skipped steps of a run, and the weights at its end."""
    found = {"loss": [], "objective": [], "norm": [], "skipped": []}

    def note(step: int, done) -> None:
        for name, values in found.items():
            values.append(getattr(done, name))

    fit(run, [(4, note)])
    return {name: torch.cat(values) for name, values in found.items()} | {"weights": weights(run)}


def command(*arguments: str) -> tuple[int, str, str]:
    """Exit status, output and errors of a command, in this process."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = main.main(list(map(str, arguments)))
    return status, out.getvalue(), err.getvalue()


def use(folder: Path, run: Path) -> None:
    """Every use of a trained run, into a folder."""
    for name, options in USES.items():
        mode = [] if "--mode" in options else ["--mode", name]
        status, _, err = command(*mode, *options, "--workdir", run, "--out", folder / name)
        assert status == 0, err


def continued(world: World, folder: Path, alone: Path) -> dict:
    """What sharded training states are worth."""
    straight = weights(trainer_at_end(world))
    run, states = trainer(world, "fsdp"), Checkpoints(folder / "states", "denoiser", world)
    for step in (4, 6, 8):
        states.save(advance(run, step).state_dict(), sharded=True)
    memory = [value for state in run.optimizer.state.values() for name, value in state.items() if name != "step"]
    tensors = [*run.parameters.values(), *run.ema.model_average.average.values(), *memory]
    found = {
        "kept": [path.name for path in states.paths()],
        "straight": straight,
        "held": world.all_gather(sum(world.local(tensor).numel() for tensor in tensors)),
    }

    def go_on(name: str, states: Checkpoints) -> None:
        run = trainer(world, "fsdp")
        state, passed = states.load(run.state_template)
        run.load_state_dict(state)
        found[name] = {"step": run.step, "passed": passed, "weights": weights(advance(run, 20))}

    go_on("continued", states)
    newest = states.paths()[0]

    def flip(file: Path) -> None:
        """The last bit of a weight."""
        content, weight = bytearray(file.read_bytes()), max(map(world.local, run.parameters.values()), key=torch.numel)
        content[content.index(weight.detach().numpy().tobytes())] ^= 1
        file.write_bytes(content)

    world.broadcast_from_main(partial(flip, newest / "__0_0.distcp"))
    go_on("flipped", states)
    for name, spoil in (("cut", lambda file: os.truncate(file, 2000)), ("lost", os.remove)):
        world.broadcast_from_main(partial(spoil, newest / "__1_0.distcp"))
        go_on(name, states)
    go_on("from a file", Checkpoints(alone / "states", "denoiser", world))
    other = trainer(world, "fsdp", width=8)
    try:
        other.load_state_dict(states.load(other.state_template)[0])
    except ValueError as error:
        found["other network"] = str(error)
    found["full disk"] = full_disk(states, run)
    own = Checkpoints(folder / f"own-{world.rank}", "denoiser", world)
    own.folder.mkdir()
    (own.folder / f"denoiser-0000000{world.rank}.pt").touch()
    try:
        own.load()
    except ValueError as error:
        found["own folders"] = world.all_gather(str(error))
    return found


def trainer_at_end(world: World) -> Trainer:
    """A sharded run that nothing happened to."""
    return advance(trainer(world, "fsdp"), 20)


def full_disk(states: Checkpoints, run: Trainer) -> dict:
    """What happens where the last process, and it alone, cannot write."""
    real, world = os.fsync, states.world

    def fsync(descriptor: int) -> None:
        if world.rank == world.size - 1:
            raise OSError(28, "No space left on device")
        real(descriptor)

    os.fsync = fsync
    try:
        states.save(run.state_dict(), sharded=True)
        text = "saved"
    except OSError as error:
        text = str(error)
    os.fsync = real
    return {"errors": world.all_gather(text), "left": sorted(path.name for path in states.folder.iterdir())}


def stopped(world: World, folder: Path) -> list:
    """A run that the last process alone is asked to end in its step 5, then continued."""
    whole = Trainer.training_step

    def training_step(self):
        if self.step == 4 and world.rank == world.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(self)

    Trainer.training_step = training_step
    first = command(*POINTS, *STEPS, "--config.training.parallel=fsdp", "--workdir", folder)
    Trainer.training_step = whole
    second = command(*POINTS, *STEPS, "--config.training.parallel=fsdp", "--workdir", folder)
    return world.all_gather([first, second])


# Neither pictures nor how well the judge judges are looked at.
@without_rendering()
@patch.dict(SETTINGS, steps=100)
@patch.object(sets, "labeled_toys", lambda name, n: labeled_toys(name, 2000))
def work(folder: Path, alone: Path, world: World) -> None:
    """Everything, into files in a folder; ``alone`` is the folder of a single process."""
    found = {
        (parallel, name): curve(trainer(world, parallel, **options))
        for parallel in ("ddp", "fsdp")
        for name, options in {**CASES, **(ALONE if parallel == "ddp" else {})}.items()
    }
    found["trained"] = world.all_gather(command(*POINTS, *STEPS, "--workdir", folder / "ddp"))
    found["distilled"] = world.all_gather(
        command(*STUDENT, "--teacher", alone / "ddp", "--workdir", folder / "student")
    )
    use(folder, alone / "ddp")
    if world.size == 1:
        states = Checkpoints(folder / "states", "denoiser")
        states.save(advance(trainer(world, "ddp"), 6).state_dict())
    else:
        found["states"] = continued(world, folder, alone)
        found["stopped"] = stopped(world, folder / "fsdp")
        found["refused"] = world.all_gather(
            command(*POINTS, "--config.training.batch_size=66", "--workdir", folder / "no")
        )
    if world.is_main:
        torch.save(found, folder / "found.pt")


@without_rendering()
def endless(folder: Path, world: World) -> None:
    """A run that is ended from outside."""
    options = ["--config.training.steps=100000", "--config.training.sample_every=100000"]
    outcome = command(*POINTS, *options, "--config.training.parallel=fsdp", "--workdir", folder / "endless")
    (folder / f"ended-{world.rank}.json").write_text(json.dumps(outcome))


def rank(folder: Path, alone: Path) -> None:
    """One of several processes of torchrun."""
    torch.set_num_threads(1)
    world, stop = World.start(torch.device("cpu")), World.stop
    # The process group serves all the commands.
    World.stop = staticmethod(lambda: None)
    work(folder, alone, world)
    endless(folder, world)
    stop()
    # A function's end would wait for torchrun, which has been told to end.
    os._exit(0)
