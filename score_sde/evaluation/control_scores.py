"""Scores of controls: whether samples have the edges, or the mask, that was asked for."""

import math
from dataclasses import asdict

from torch import Tensor

from score_sde.metrics.agreement import f1_scores
from score_sde.metrics.estimate import NORMAL_QUANTILE, Estimate
from score_sde.run.controls import Controls
from sde.condition.tree import CONTROL, Condition
from sde.data import Dataset
from sde.data.controls import BINARY, CONTROLS


def control_scores(controls: Controls | None, cond: Condition | None, x: Tensor, data: Dataset) -> dict | None:
    """The mean F1 score of samples x (n, *event) with the first control of their condition, with its interval, and the
    ``chance``, that with the control of another sample; None where there is no control of BINARY."""
    if controls is None or not controls.runs or cond is None or CONTROL not in cond:
        return None
    options = controls.runs[0].config.data
    if options.control not in BINARY:
        return None
    asked = cond[CONTROL]
    found = CONTROLS[options.control](data.items, options.superres_factor)(x.to(data.transform.dtype))
    scores = f1_scores(found, asked)
    mean, width = scores.mean().item(), NORMAL_QUANTILE * scores.std().item() / math.sqrt(len(scores))
    chance = f1_scores(found, asked.roll(1, 0)).mean().item()
    estimate = Estimate(mean, mean, max(0.0, mean - width), min(1.0, mean + width))
    return {**asdict(estimate), "control": options.control, "chance": chance}
