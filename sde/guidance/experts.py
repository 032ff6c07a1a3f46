"""Experts: one model for the noisy part of a run, another for the rest."""

import torch
from torch import Tensor

from sde.model.score import ScoreModel, is_normalized, parts_of


class Experts(ScoreModel):
    """The posterior mean of ``early`` at times from ``switch`` on, where there is more noise, and that of ``late`` at
    those below (Balaji et al. 2022, eDiff-I; the base and the refiner of SDXL, Podell et al. 2023).

    Both are score models on one process, as conditional or guided ones; state and transform are those that they share.
    Each call is one of a single model. Raises ValueError for a time that the process does not have, and for models of
    other processes.
    """

    with_rows = ("early", "late")

    def __init__(self, early: ScoreModel, late: ScoreModel, switch: float) -> None:
        process, transform = parts_of(early, "Experts")
        other, own = parts_of(late, "Experts")
        super().__init__(process, own if transform is None else transform)
        if other != process:
            raise ValueError(f"Experts of {process} and of {other}: needs models on one process")
        if not process.t_min < switch <= process.t_max:
            raise ValueError(
                f"switch = {switch:g}: needs a time above t_min = {process.t_min:g}, up to {process.t_max:g}"
            )
        self.early, self.late, self.switch = early, late, switch
        self.normalized = is_normalized(early) and is_normalized(late)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        noisy = t >= self.switch
        # A time of its own lies on the CPU, and is read without waiting.
        if bool(noisy.all()) or not bool(noisy.any()):
            return (self.early if bool(noisy.all()) else self.late)(x, t)
        index = [noisy.nonzero().squeeze(1), (~noisy).nonzero().squeeze(1)]
        models: list[ScoreModel] = [self.early, self.late]
        parts = [model.rows(rows)(x[rows], t[rows]) for model, rows in zip(models, index, strict=True)]
        return torch.cat(parts)[torch.cat(index).argsort()]
