"""Accuracy of a noise-conditional classifier on noisy items, by noise level."""

import torch
from torch import Tensor

from score_sde.evaluation.denoising_errors import Batch, DenoisingErrors, noisy
from sde.condition.tree import require_labels
from sde.data import Dataset
from sde.model.classifier import NoisyClassifier

NUM_LEVELS = 10
"""Noise levels: the middles of equal parts of the process in log(sigma / alpha)."""
MAX_ITEMS = 1000


class NoisyAccuracy:
    """The accuracy of a classifier on held-out items at noise levels spread over its process, with the same noise every
    time. ``classifier`` says what process and classes there are."""

    def __init__(self, held_out: Dataset, classifier: NoisyClassifier, device: torch.device) -> None:
        self.measured = DenoisingErrors(held_out, classifier, "log_snr", device, MAX_ITEMS, NUM_LEVELS)

    @property
    def chance(self) -> float:
        """The share of the most frequent class: the accuracy of a classifier that looks at nothing."""
        labels = require_labels(self.measured.cond)
        return labels.bincount().max().item() / len(labels)

    def by_noise(self, classifier: NoisyClassifier) -> list[dict]:
        """``"noise_level"``, sigma / alpha, and ``"accuracy"`` at every level, from the least noise to the most."""

        def right(at: Batch) -> Tensor:
            return classifier(noisy(classifier.sde, at), at.draws.t).argmax(1) == require_labels(at.cond)

        accuracy = self.measured.each(right).mean(1).tolist()
        return [
            {"noise_level": s, "accuracy": a} for s, a in zip(self.measured.noise_level.tolist(), accuracy, strict=True)
        ]
