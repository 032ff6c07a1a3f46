"""Labels and guidance of a command, bound to the model."""

import torch
from torch import Tensor

from sde import Denoiser, NoisyClassifier, ScoreModel
from sde.guidance import Classifier, ClassifierFree


def read_labels(text: str | None, count: int, classes: int | None) -> Tensor | None:
    """``--labels``: "0,1,2" cycled over the samples, "none", or by default every class in turn."""
    if text == "none" or (not text and classes is None):
        return None
    if classes is None:
        raise ValueError(
            f"--labels={text}: the model is unconditional and there is no classifier guidance; leave the "
            "labels out, or add --classifier_scale"
        )
    try:
        labels = torch.tensor([int(part) for part in text.split(",")] if text else range(classes))
    except ValueError:
        raise ValueError(
            f"--labels={text}: needs class numbers from 0 to {classes - 1}, as in 0,1,2, or none"
        ) from None
    for label in labels.tolist():
        if not 0 <= label < classes:
            raise ValueError(f"--labels={text}: class {label} is out of range, allowed are 0 to {classes - 1}")
    return labels[torch.arange(count) % len(labels)]


def guided(
    model: Denoiser,
    classifier: NoisyClassifier | None,
    labels: Tensor | None,
    guidance_scale: float,
    classifier_scale: float,
) -> ScoreModel:
    """The model with labels (n,), or None, and guidance bound; without a classifier, ``classifier_scale`` is 0."""
    if labels is None and (guidance_scale != 1 or classifier_scale):
        raise ValueError(
            f"--guidance_scale={guidance_scale:g} and --classifier_scale={classifier_scale:g} guide towards "
            "labels: give --labels, or leave the scales at 1 and 0"
        )
    if guidance_scale != 1 and model.num_classes is None:
        raise ValueError(
            f"--guidance_scale={guidance_scale:g}: the model is unconditional, so there is nothing to guide "
            "without a classifier; leave it at 1"
        )
    if labels is None and not model.null_trained:
        raise ValueError(
            "--labels=none: this model never trained its unconditional branch (config.training.cond_dropout was 0); "
            "give classes"
        )
    score_model: ScoreModel = model
    if labels is not None and model.num_classes:
        score_model = ClassifierFree(model, labels, guidance_scale)
    return Classifier(score_model, classifier, labels, classifier_scale) if classifier else score_model
