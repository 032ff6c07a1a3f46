"""Every guidance and posterior method, bound to a model: what runs on devices."""

import copy
import math

import torch

from sde import NoisyClassifier
from sde.guidance import (
    Autoguidance,
    Classifier,
    ClassifierFree,
    Conditional,
    DynamicThreshold,
    Experts,
    GuidanceInterval,
    GuidanceRescale,
    StaticThreshold,
)
from sde.inverse import Mask
from sde.inverse.posterior import DPS, MMPS, PiGDM, Replacement
from sde.networks.classifier import MLPClassifier


def like(model):
    """A tensor of the device and type of a model."""
    return next(model.parameters(), next(model.buffers(), None))


def scrambled(module, size, seed):
    """A module with random weights of this size, drawn on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.copy_(size * torch.randn(parameter.shape, generator=generator))
    return module


def judge(model):
    """A classifier of what the model is of, on random weights."""
    classifier = NoisyClassifier(MLPClassifier(model.event_shape, model.num_classes, 8, 1), model.sde).eval()
    return scrambled(classifier, 0.5, 2).to(like(model))


def weaker(model):
    """Another model of the same, whose weights are random."""
    return scrambled(copy.deepcopy(model), 0.3, 1)


def measured(model, labels, method, *options):
    """A posterior method that sees every other number of an item, all of them one."""
    mask = torch.arange(math.prod(model.event_shape)) % 2 == 0
    operator = Mask(mask.view(model.event_shape), model.event_shape).to(like(model).device)
    y = torch.ones(len(labels), int(mask.sum()), device=like(model).device, dtype=like(model).dtype)
    return method(model, operator, y, *options)


POSTERIORS = {
    "replacement": lambda m, y: measured(m, y, Replacement),
    "dps": lambda m, y: measured(m, y, DPS, 0.1),
    "pigdm": lambda m, y: measured(m, y, PiGDM, 0.1),
    "mmps": lambda m, y: measured(m, y, MMPS, 0.1),
}
"""Of a score model that knows its ``event_shape``; the labels say how many rows there are."""

GUIDED = {
    "conditional": lambda m, y: Conditional(m, y),
    "classifier_free": lambda m, y: ClassifierFree(m, y, 2.0),
    "negative": lambda m, y: ClassifierFree(m, y, 2.0, y.flip(0)),
    "classifier": lambda m, y: Classifier(m, judge(m), y, 1.5),
    "classifier of the denoised": lambda m, y: Classifier(m, judge(m), y, 1.5, "denoised"),
    "autoguidance": lambda m, y: Autoguidance(m, weaker(m), 1.5),
    "experts": lambda m, y: Experts(
        ClassifierFree(m, y, 2.0), Conditional(weaker(m), y), (m.sde.t_min + m.sde.t_max) / 2
    ),
    "interval": lambda m, y: GuidanceInterval(ClassifierFree(m, y, 2.0), 0.1, 5.0),
    "rescale": lambda m, y: GuidanceRescale(ClassifierFree(m, y, 2.0), 0.7),
    "static threshold": lambda m, y: StaticThreshold(ClassifierFree(m, y, 2.0), -2.0, 2.0),
    "threshold": lambda m, y: DynamicThreshold(ClassifierFree(m, y, 2.0), 0.9, -2.0, 2.0),
    **POSTERIORS,
}
"""Of a denoiser with classes, and labels (B,) on its device."""
