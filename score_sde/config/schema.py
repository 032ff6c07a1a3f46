"""The keys of a config: their defaults, and what they may be set to."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields

from samplers import SAMPLERS
from score_sde.config.component import options_of
from score_sde.config.options import (
    COMPILING,
    MEMORY_FORMATS,
    NOISE_INPUTS,
    PRECISIONS,
    SOLVERS,
    AutoencoderOptions,
    AutoencoderSection,
    ControlSection,
    DataOptions,
    LossOptions,
    LowRankOptions,
    ModelOptions,
    PrecisionOptions,
    SessionOptions,
    TeacherOptions,
    data_defaults,
)
from sde import PARAMETRIZATIONS, SDES
from sde.autoencoder import AUTOENCODERS, autoencoder_of
from sde.autoencoder.loss import RECONSTRUCTIONS, AutoencoderLoss
from sde.autoencoder.measurement import SCALES
from sde.condition.text import TEXT_ENCODERS
from sde.data.array_files import CHANNELS
from sde.data.controls import CONTROLS, GIVEN
from sde.data.toys import TOYS
from sde.distillation import METHODS
from sde.networks import CLASSIFIERS, NETWORKS, network_of
from sde.process import process_of
from sde.training.augmentation import AUGMENTATIONS, TOLD
from sde.training.loss import WEIGHTINGS
from sde.training.options import TrainingOptions
from sde.training.times import TIMES

MOVABLE = (
    "data.root", "data.test_root", "data.cache", "data.workers", "data.kind", "data.pairs", "data.cache_latents",
    "model.network.activation_checkpointing", "model.text.folder", "control.base"
)  # fmt: skip
"""Keys that may change in a run that is continued: where data are, how they are read and shown, and activation
checkpointing."""
SETTLED = tuple(f.name for f in fields(PrecisionOptions))
"""Keys of config.training whose "auto" a run settles by trying, once."""

DEFAULTS: dict[str, dict] = {
    "data": data_defaults(DataOptions.dataset),
    "sde": {"name": "vp"},
    "model": {
        **options_of(ModelOptions),
        **options_of(LowRankOptions),
        "network": {"name": "unet"},
        "text": {"name": "token_vectors"},
    },
    "classifier": {"network": {"name": "unet"}, **options_of(TrainingOptions)},
    "autoencoder": {
        "network": {"name": "kl"},
        **options_of(AutoencoderLoss),
        **options_of(AutoencoderOptions),
        **{key: value for key, value in options_of(TrainingOptions).items() if key not in AutoencoderSection.without},
    },
    "training": {
        **options_of(TrainingOptions),
        **options_of(LossOptions),
        **options_of(PrecisionOptions),
        **options_of(SessionOptions),
    },
    "control": options_of(ControlSection),
    "distillation": {**options_of(TeacherOptions), "method": {"name": "progressive"}},
    "sampler": {"name": "heun"},
}


def auto() -> None:
    """--sampler auto, which takes no options: ``samplers.plan`` finds what to do."""


CHOICES_OF_SAMPLER: dict[str, Callable] = {**SAMPLERS, "auto": auto}

NAMED: Mapping[str, Mapping[str, Callable]] = {
    "sde": SDES,
    "model.network": NETWORKS,
    "model.text": TEXT_ENCODERS,
    "classifier.network": CLASSIFIERS,
    "autoencoder.network": AUTOENCODERS,
    "distillation.method": METHODS,
    "sampler": CHOICES_OF_SAMPLER,
}
"""Sections whose ``name`` selects a component; their other keys are that component's keyword arguments."""

OWN: Mapping[str, Callable[[str, str], Callable]] = {
    "sde": process_of,
    "model.network": network_of,
    "classifier.network": network_of,
    "autoencoder.network": autoencoder_of,
}
"""Of these, the sections whose ``name`` may also be an import path: functions of name and key that find it."""

CHOICES: dict[str, Iterable[str]] = {
    "data.toy": TOYS,
    "data.channels": CHANNELS,
    "data.control": ("", *CONTROLS, GIVEN),
    "model.parametrization": PARAMETRIZATIONS,
    "model.noise_input": NOISE_INPUTS,
    "model.latent_scale": SCALES,
    "classifier.time_distribution": TIMES,
    "autoencoder.augmentation": [name for name in AUGMENTATIONS if name not in TOLD],
    "autoencoder.reconstruction": RECONSTRUCTIONS,
    "distillation.solver": SOLVERS,
    "training.loss_weighting": WEIGHTINGS,
    "training.augmentation": AUGMENTATIONS,
    "training.time_distribution": TIMES,
    "training.precision": ("auto", *PRECISIONS),
    "training.memory_format": ("auto", *MEMORY_FORMATS),
    "training.compile": COMPILING,
}
