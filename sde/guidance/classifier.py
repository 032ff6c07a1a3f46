"""Classifier guidance."""

from collections.abc import Callable

from torch import Tensor

from sde.condition.binding import bind_labels, expand_rows
from sde.guidance.gradient import GradientGuidance
from sde.model.score import ScoreModel


class Classifier(GradientGuidance):
    """Classifier guidance: score + scale grad_x log p(y | x_t) (Dhariwal and Nichol 2021, eq. 14).

    ``classifier(x, t)`` returns logits (B, classes); with ``point`` "noisy" at the noise level of t, with "denoised" of
    clean data in model units. ``labels`` (B,) or () are the classes asked for. ``model`` may itself be guided.
    """

    with_rows = ("base", "model", "labels")

    def __init__(
        self,
        model: ScoreModel,
        classifier: Callable[[Tensor, Tensor], Tensor],
        labels: Tensor,
        scale: float = 1.0,
        point: str = "noisy",
    ) -> None:
        super().__init__(model, scale, point)
        self.classifier = classifier
        self.labels = bind_labels(labels, getattr(classifier, "num_classes", None))
        if int(self.labels.min()) < 0:
            raise ValueError(f"label {int(self.labels.min())}: a classifier guides towards classes from 0")
        self.highest = int(self.labels.max())

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        logits = self.classifier(x, t)
        if logits.ndim != 2 or logits.shape[1] <= self.highest:
            raise ValueError(
                f"the classifier returned shape {tuple(logits.shape)}, and class {self.highest} is asked for: it must "
                f"return logits of shape ({len(x)}, classes), which has that class"
            )
        return logits.log_softmax(-1).gather(1, expand_rows(self.labels, x)[:, None]).squeeze(1)
