"""The options of a run: a frozen dataclass per section of its config, built once, where a command begins."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from score_sde.config.component import Component, options_of
from score_sde.config.section import Section
from sde.autoencoder.loss import AutoencoderLoss
from sde.autoencoder.measurement import SCALES
from sde.data import DATASETS
from sde.data.sets import source_of
from sde.networks.lora import ALL, LoRA
from sde.training.options import TrainingOptions

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
MEMORY_FORMATS = ("contiguous", "channels_last")
COMPILING = ("auto", "on", "off")
SHARED = ("dataset", "event_shape", "conditions", "superres_factor", "condition_noise", "downsample", "dequantized",
          "workers", "control")  # fmt: skip
"""Keys of config.data that are for every data set; the others are keyword arguments of some."""
OF_THE_RUN = ("kind", "pairs", "cache_latents")
"""Those that no data set is asked for."""


@dataclass(frozen=True)
class DataOptions(Section):
    """The data set, a key of DATASETS or an import path; what ``load_dataset`` does to every one; the ``kind`` of its
    items, a key of KINDS, or nothing where it is found; a file of ``pairs`` to train on, or nothing; ``cache_latents``,
    whether latents are computed once; and the keyword arguments of this data set and others, each itself a key."""

    dataset: str = "digits"
    event_shape: tuple[int, ...] = ()
    kind: str = ""
    conditions: tuple[str, ...] = ()
    superres_factor: int = 2
    condition_noise: tuple[float, ...] = ()
    downsample: int = 1
    dequantized: bool = True
    workers: int = 4
    control: str = ""
    pairs: str = ""
    cache_latents: bool = False
    own: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict:
        """The keyword arguments of ``load_dataset``."""
        return {name: getattr(self, name) for name in (*SHARED, *own_keys(self.dataset))}


def own_keys(dataset: str) -> list[str]:
    """The keys of config.data that this data set reads and that are not for every one: its keyword arguments."""
    return [name for name in options_of(source_of(dataset)) if name not in (*SHARED, *OF_THE_RUN)]


def data_defaults(dataset: str) -> dict:
    """All keys of config.data with their defaults, those of this data set first."""
    found = options_of(DataOptions)
    for name in (dataset, *DATASETS):
        options = options_of(source_of(name, "config.data.dataset"))
        found |= {key: options[key] for key in own_keys(name) if key not in found}
    return found


NOISE_INPUTS = ("noise_level", "step")
"""What networks are told of the time, of those that are trained here: log(sigma / alpha) / 4, of an x of unit variance;
or what score_sde and diffusers tell them, of x as it is."""


@dataclass(frozen=True)
class LowRankOptions:
    """Low-rank updates in place of the weights (``sde.networks.lora.LoRA``): their rank, 0 for none, their alpha, 0 for
    the rank, and the layers that have one, with commas between them. Raises ValueError as that does."""

    lora_rank: int = 0
    lora_alpha: float = 0.0
    lora_targets: str = ALL

    def __post_init__(self) -> None:
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank = {self.lora_rank}: needs a whole number from 1, or 0 for no updates")
        self.lora  # noqa: B018 (it refuses what is none)

    @property
    def lora(self) -> LoRA | None:
        """What is updated, and how; None where nothing is."""
        targets = tuple(target.strip() for target in self.lora_targets.split(","))
        return LoRA(self.lora_rank, self.lora_alpha, targets) if self.lora_rank > 0 else None


@dataclass(frozen=True)
class ModelOptions(Section):
    """The denoiser: its parametrization, ``sigma_data`` (0: measured), what its network is told of the time, one of
    NOISE_INPUTS, whether it is conditional, its ``autoencoder``, nothing, "own" or a path, how its latents are scaled,
    one of SCALES, its network, low-rank updates of that, and the encoder of its captions, a key of TEXT_ENCODERS."""

    parametrization: str = "edm"
    sigma_data: float = 0.0
    noise_input: str = "noise_level"
    conditional: bool = True
    autoencoder: str = ""
    latent_scale: str = SCALES[0]
    network: Component = field(default_factory=lambda: Component("unet"))
    updates: LowRankOptions = field(default_factory=LowRankOptions)
    text: Component = field(default_factory=lambda: Component("token_vectors"))


@dataclass(frozen=True)
class LossOptions:
    """``loss_weighting``, a key of WEIGHTINGS; the probability ``cond_dropout`` with which an item is trained without
    its condition; ``augmentation``, a key of AUGMENTATIONS, and the probability of each of its transforms; and whether
    an ``UncertaintyWeighting`` is learned. Raises ValueError where a probability is none."""

    loss_weighting: str = "edm"
    cond_dropout: float = 0.1
    augmentation: str = "none"
    augmentation_probability: float = 0.12
    uncertainty_weighting: bool = False

    def __post_init__(self) -> None:
        for name in ("cond_dropout", "augmentation_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: needs a probability from 0 to 1")


@dataclass(frozen=True)
class PrecisionOptions:
    """``precision`` of the network's body, a key of PRECISIONS, ``memory_format`` of its weights, one of
    MEMORY_FORMATS, and whether to ``compile`` it, one of COMPILING; "auto" is what is found fastest, once per run."""

    precision: str = "auto"
    memory_format: str = "auto"
    compile: str = "auto"


@dataclass(frozen=True)
class SessionOptions:
    """Steps between lines of numbers, pictures and checkpoints, and whether TensorBoard gets the numbers too. Raises
    ValueError for numbers below 1."""

    tensorboard: bool = False
    log_every: int = 50
    sample_every: int = 1000
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("log_every", "sample_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: needs at least 1")


@dataclass(frozen=True)
class TrainingSection(Section):
    """The training of the denoiser."""

    optimization: TrainingOptions = field(default_factory=TrainingOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    speed: PrecisionOptions = field(default_factory=PrecisionOptions)
    session: SessionOptions = field(default_factory=SessionOptions)


@dataclass(frozen=True)
class ClassifierSection(Section):
    """The classifier: its network and its training; the rest is as for the denoiser."""

    network: Component = field(default_factory=lambda: Component("unet"))
    optimization: TrainingOptions = field(default_factory=TrainingOptions)


@dataclass(frozen=True)
class ControlSection(Section):
    """The control of a frozen base: the run folder that the base came from, nothing where there is no control, and the
    channels of the hint's encoder."""

    base: str = ""
    hint_channels: tuple[int, ...] = (16, 32)


@dataclass(frozen=True)
class AutoencoderOptions:
    """How the training items of an autoencoder are augmented, a key of AUGMENTATIONS that tells a network nothing, and
    the file of the ``features`` of its perceptual distance, or nothing."""

    augmentation: str = "none"
    features: str = ""


@dataclass(frozen=True)
class AutoencoderSection(Section):
    """The autoencoder: its network, its loss, and its training, which knows no times. Raises ValueError for a
    perceptual weight without features, and for features without weight."""

    without: ClassVar[tuple[str, ...]] = ("time_distribution", "time_mean", "time_std")
    network: Component = field(default_factory=lambda: Component("kl"))
    loss: AutoencoderLoss = field(default_factory=AutoencoderLoss)
    items: AutoencoderOptions = field(default_factory=AutoencoderOptions)
    optimization: TrainingOptions = field(default_factory=TrainingOptions)

    def __post_init__(self) -> None:
        weight, file = self.loss.perceptual_weight, self.items.features
        if weight and not file:
            raise ValueError(f"perceptual_weight = {weight:g}: needs `features`, the file of a network's weights")
        if file and not weight:
            raise ValueError(f"features = {file!r}: has no use with a `perceptual_weight` of 0; set that, too")


SOLVERS = ("ddim", "heun")
"""Samplers whose steps a teacher can make, of which each sample has times of its own."""


@dataclass(frozen=True)
class TeacherOptions:
    """The run folder of the teacher and the ``sha256`` of its weights, nothing where there is none; its guidance scale,
    or the least and the largest of a range that is an input of the student; and the sampler whose steps it makes.
    Raises ValueError for other numbers of scales."""

    teacher: str = ""
    sha256: str = ""
    guidance_scale: tuple[float, ...] = (1.0,)
    solver: str = "heun"

    def __post_init__(self) -> None:
        scales = self.guidance_scale
        if len(scales) not in (1, 2) or not all(map(math.isfinite, scales)) or (len(scales) == 2 and not self.range):
            raise ValueError(
                f"guidance_scale = {scales}: needs one number, or the least and the largest of a range, from 0, as 1,4"
            )

    @property
    def range(self) -> tuple[float, float] | None:
        """The least and the largest guidance scale that the student is told, or None."""
        scales = self.guidance_scale
        return (scales[0], scales[1]) if len(scales) == 2 and 0 <= scales[0] < scales[1] else None


@dataclass(frozen=True)
class DistillationSection(Section):
    """The distillation of a student: its teacher, and the method, a key of METHODS with its hyper-parameters."""

    teaching: TeacherOptions = field(default_factory=TeacherOptions)
    method: Component = field(default_factory=lambda: Component("progressive"))


@dataclass(frozen=True)
class Config:
    """All options of a run."""

    data: DataOptions
    sde: Component
    model: ModelOptions
    classifier: ClassifierSection
    autoencoder: AutoencoderSection
    training: TrainingSection
    distillation: DistillationSection
    control: ControlSection
    sampler: Component

    def settled(self, **speed: str) -> "Config":
        """The same with other values of PrecisionOptions."""
        training = replace(self.training, speed=replace(self.training.speed, **speed))
        return replace(self, training=training)

    def of_kind(self, kind: str) -> "Config":
        """The same with another kind of data."""
        return replace(self, data=replace(self.data, kind=kind))

    def to_dict(self) -> dict:
        """Plain values by section and key, for config.json."""
        return {name: getattr(self, name).to_dict() for name in sorted(vars(self))}
