"""Classifier guidance."""

from collections.abc import Callable

from torch import Tensor

from sde.condition.binding import bind_labels, expand_rows
from sde.device import double
from sde.guidance.gradient import GradientGuidance
from sde.model.score import ScoreModel
from sde.process.coefficients import expand


class Classifier(GradientGuidance):
    """Classifier guidance: score + scale grad_x log p(y | x_t) (Dhariwal and Nichol 2021, eq. 14).

    ``classifier(x, t)`` returns logits (B, classes); with ``point`` "noisy" at the noise level of t, with "denoised" of
    clean data in model units. ``labels`` (B,) or () are the classes asked for. ``model`` may itself be guided.

    A noisy classifier with another process, ``classifier.sde``, sees x_t as that process makes it of the same data and
    noise: alpha' x_t / alpha at the time of the same sigma / alpha, which tells as much of y; beyond its ends at the
    nearest.
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
        logits = self.classifier(*self._as_its_own(x, t))
        if logits.ndim != 2 or logits.shape[1] <= self.highest:
            raise ValueError(
                f"the classifier returned shape {tuple(logits.shape)}, and class {self.highest} is asked for: it must "
                f"return logits of shape ({len(x)}, classes), which has that class"
            )
        return logits.log_softmax(-1).gather(1, expand_rows(self.labels, x)[:, None]).squeeze(1)

    def _as_its_own(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x and t of the model's process as those of the classifier's."""
        own = getattr(self.classifier, "sde", None)
        if self.point != "noisy" or own is None or own is self.sde or own == self.sde:
            return x, t
        at, (most, least) = self.sde.level(t), own.log_snr_ends
        if isinstance(at.log_snr, float):
            time = t.new_tensor(own.t_of_log_snr(double(min(max(at.log_snr, least), most))).item())
        else:
            time = own.t_of_log_snr(at.log_snr.clamp(least, most)).to(t)
        return expand(own.level(time).alpha / at.alpha, x) * x, time
