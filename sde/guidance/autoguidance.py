"""Autoguidance: by a weaker version of the model."""

import torch
from torch import Tensor

from sde.data.transform import Transform
from sde.guidance.base import Guidance, base_of, check_scale, pair_of
from sde.model.score import ScoreModel, is_normalized, parts_of
from sde.process.base import SDE


class Autoguidance(Guidance):
    """Guidance by a weaker version of the model: D_weak + scale (D - D_weak) (Karras et al. 2024, arXiv:2406.02507, eq.
    3 with its w as ``scale``).

    ``weak`` has seen the same data and conditions, with fewer weights or less training, or is a shorter or earlier
    average of them. Scale 1 is the model and 0 the weak one, each in a single call. Either may be guided itself. Raises
    ValueError where the two have another SDE or transform.
    """

    with_rows = ("base", "model", "weak")

    def __init__(self, model: ScoreModel, weak: ScoreModel, scale: float) -> None:
        super().__init__(*parts_of(model, "Autoguidance"))
        weak_sde, weak_transform = parts_of(weak, "Autoguidance")
        weak_transform = weak_transform or Transform()
        if not _same_process(self.sde, weak_sde) or self.transform.digest != weak_transform.digest:
            raise ValueError(
                f"the weaker model has {weak_sde} and {weak_transform}, the model {self.sde} and {self.transform}: "
                "autoguidance needs the same of both"
            )
        self.model = model
        self.weak = weak
        self.base = base_of(model)
        self.scale = check_scale(scale)
        self.normalized = (scale == 1 and is_normalized(model)) or (scale == 0 and is_normalized(weak))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.weak(x, t) if self.scale == 0 else super().forward(x, t)

    def pair(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        base, denoised = pair_of(self.model, x, t)
        if self.scale == 1:
            return base, denoised
        weak = self.weak(x, t)
        return base, weak + self.scale * (denoised - weak)


def _same_process(first: SDE, second: SDE) -> bool:
    """Whether alpha and sigma agree: an SDE need not define equality."""
    ends = (first.t_min, first.t_max)
    times = torch.linspace(*ends, 5, dtype=torch.float64, device="cpu")
    return ends == (second.t_min, second.t_max) and all(
        torch.equal(getattr(first, name)(times), getattr(second, name)(times)) for name in ("log_alpha", "sigma")
    )
