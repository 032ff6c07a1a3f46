"""A denoiser as a program of torch.export: D(x, t, cond) that runs without this project."""

from pathlib import Path

import torch
from torch import Tensor, nn

from sde.condition.tree import BoundCondition, Condition, null_tree
from sde.model.denoiser import Denoiser

PROGRAM = "model.pt2"


class _Program(nn.Module):
    """D of a condition by kind, whose values are not looked at."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        return self.model(x, t, None if cond is None else BoundCondition(cond))


def write_program(model: Denoiser, folder: Path) -> list[Path]:
    """Write ``model.pt2``: for ``torch.export.load``, the posterior mean D(x, t, cond) of x (B, *event) in model units
    at times t (B,), in float32, for any number of rows B; cond is the dict of the model's conditions, labels int64 (B,)
    with -1 for none, or None where it has no conditions. Raises ValueError for a network that cannot be traced."""
    if model.event_shape is None:
        raise ValueError("the model does not say what shape its items have: build it with event_shape")
    # Neither 0 nor 1 rows, of which a graph could keep that they are.
    x, t = torch.zeros(2, *model.event_shape), torch.full((2,), float(model.sde.t_max))
    cond = null_tree(x, model.num_classes, model.conditions) or None
    rows = {0: torch.export.Dim("rows")}
    shapes = (rows, rows, None if cond is None else dict.fromkeys(cond, rows))
    try:
        with torch.no_grad():
            program = torch.export.export(_Program(model.cpu().eval()), (x, t, cond), dynamic_shapes=shapes)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"torch.export cannot trace this network ({reason}): it cannot be a program") from error
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, folder / PROGRAM)
    return [folder / PROGRAM]
