"""Training: losses, the trainer, averages of the weights, and the audit before the first step."""

from sde.training.augmentation import AUGMENTATIONS, Augmentation
from sde.training.fit import fit
from sde.training.loss import WEIGHTINGS, classifier_loss, denoising_loss
from sde.training.options import TrainingOptions
from sde.training.times import TIMES
from sde.training.trainer import Trainer
from sde.training.uncertainty import UncertaintyWeighting

__all__ = [
    "AUGMENTATIONS",
    "TIMES",
    "WEIGHTINGS",
    "Augmentation",
    "Trainer",
    "TrainingOptions",
    "UncertaintyWeighting",
    "classifier_loss",
    "denoising_loss",
    "fit",
]
