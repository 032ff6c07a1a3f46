"""--mode train_autoencoder: into a run folder, continued by the same command."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from score_sde.config.naming import with_keys
from score_sde.evaluation.reconstruction import measured, peak_of, reconstruct
from score_sde.modes.train import held, refuse_overwriting, seeded
from score_sde.plots.strip import strip
from score_sde.run.folder import Run
from score_sde.training.compiling import settled
from score_sde.training.rehearsal import Rehearsal
from score_sde.training.session import Session
from score_sde.training.spec import autoencoder_spec
from sde.autoencoder import Autoencoder
from sde.autoencoder.features import ImageFeatures
from sde.autoencoder.units import outer_transform
from sde.checkpoint.transforms import autoencoder_described, build_autoencoder, describe_transform
from sde.data.statistics import spread
from sde.files import expanded, write_json
from sde.training.augmentation import Augmentation
from sde.training.reconstruction import AutoencoderTrainer, ReconstructionLoss
from sde.training.trainer import StepResult, check_batch

SHOWN = 16
"""Items in the picture of reconstructions."""
PARTS = ("held_out", "training")
RECORDED = ("psnr", "bits_per_item")
"""Of the report, what is also a line of the metrics."""


def train_autoencoder(run: Run) -> dict:
    """Train the autoencoder whose latents a denoiser can then be trained in."""
    config, settings = run.config, run.config.autoencoder
    refuse_overwriting(run, "autoencoder", run.autoencoder_file, "move it away first")
    data, held_out = run.items
    with with_keys("autoencoder"):
        check_batch(settings.optimization, data)
        augmentation = Augmentation(settings.augmentation)
        augmentation.check(data.event_shape, data.sizes is not None, ())
    spec = autoencoder_spec(config, data)
    with with_keys("autoencoder", "autoencoder.network"):
        autoencoder = seeded(settings.seed, build_autoencoder, autoencoder_described(spec)).to(run.device)
    outer = outer_transform(autoencoder, data)
    spec["outer"] = describe_transform(outer)
    data, held_out = replace(data, transform=outer), replace(held_out, transform=outer)
    features = None
    with with_keys("autoencoder"):
        if settings.features:
            features = ImageFeatures(Path(expanded(settings.features)), data.event_shape, outer).to(run.device)
    loss = ReconstructionLoss(settings.loss, features)
    options = settings.optimization
    run = settled(Rehearsal(run, autoencoder, data, loss, options, augmentation))
    with with_keys("autoencoder"):
        workers = config.data.workers
        trainer = AutoencoderTrainer(autoencoder, data, loss, options, run.world, workers, augmentation=augmentation)
    session = Session(run, trainer, "autoencoder", run.autoencoder_file, spec)
    peak = peak_of(data)

    found: dict[str, Any] = {}

    def report() -> dict:
        """The report on the averaged weights, which is also written, with a picture."""
        nonlocal found
        if found.get("step") != trainer.step:
            averaged = session.averaged()
            found = run.world.broadcast_from_main(lambda: written(held(averaged, Autoencoder)))  # type: ignore[type-abstract]
        return found

    def written(averaged: Autoencoder) -> dict[str, Any]:
        own = measured(averaged, data, run.device)
        # Of training items, as a parameter of the model.
        autoencoder.noise_std.copy_(own.noise_std.float())
        values: dict[str, Any] = {
            "step": trainer.step,
            "held_out": measured(averaged, held_out, run.device).to_dict(peak),
            "training": own.to_dict(peak),
            "peak": peak,
            "noise_std": own.noise_std.tolist(),
            "latent_shape": list(averaged.latent_shape),
        }
        x, reconstructions = reconstruct(averaged, held_out, spread(len(held_out), SHOWN), run.device)
        names = ("held-out items", f"reconstructions ({values['held_out']['psnr']:.1f} dB over all)")
        with session.tolerated("the report"):
            write_json(run.folder / "autoencoder.json", values)
            strip(
                torch.stack([x, reconstructions]), names, run.folder / "autoencoder.png", kind=run.kind,
                levels=data.transform.num_levels,
            )  # fmt: skip
        return values

    def record(step: int, done: StepResult) -> None:
        report()
        session.record({"step": step, **{key: {part: found[part][key] for part in PARTS} for key in RECORDED}})
        session.report()

    # Four times at least, for a curve.
    session.fit([(min(config.training.sample_every, max(1, settings.steps // 4)), record)])
    report()
    session.save_model()
    print(sentence(found))
    return session.summary("train_autoencoder") | {key: value for key, value in found.items() if key != "step"}


def sentence(found: dict) -> str:
    """The report in words."""
    own, training = found["held_out"], found["training"]
    rate = own["bits_per_item"]
    bits = "" if rate is None else f" at {rate:.0f} bits per item, {own['bits_per_dim']:.3f} per entry"
    shape = "x".join(map(str, found["latent_shape"]))
    return (
        f"held-out items come back from latents of {shape} at {own['psnr']:.2f} dB{bits}; training items at "
        f"{training['psnr']:.2f} dB"
    )
