"""Guidance: score models that wrap score models. Conditions are bound here, so samplers see (x, t) only."""

from sde.guidance.autoguidance import Autoguidance
from sde.guidance.base import Guidance
from sde.guidance.classifier import Classifier
from sde.guidance.classifier_free import ClassifierFree
from sde.guidance.conditional import Conditional
from sde.guidance.experts import Experts
from sde.guidance.gradient import LikelihoodGuidance
from sde.guidance.interval import GuidanceInterval
from sde.guidance.rescale import GuidanceRescale
from sde.guidance.threshold import DynamicThreshold, StaticThreshold
from sde.renamed import gone

__all__ = [
    "Autoguidance",
    "Classifier",
    "ClassifierFree",
    "Conditional",
    "DynamicThreshold",
    "Experts",
    "Guidance",
    "GuidanceInterval",
    "LikelihoodGuidance",
    "GuidanceRescale",
    "StaticThreshold",
]


def __getattr__(name: str) -> object:
    raise gone(__name__, name, {"LogProbability": "LikelihoodGuidance", "Rescaled": "GuidanceRescale"})
