"""A model as a program of torch.export, which runs without this project: D(x, t, cond) of a denoiser, x_s(x, t, s,
cond) of a flow map, and of a model in latents the decoder."""

from pathlib import Path

import torch
from torch import Tensor, nn

from sde.autoencoder import LatentTransform
from sde.condition.tree import BoundCondition, Condition, null_tree
from sde.distillation import GUIDANCE_SCALE, FlowMap
from sde.model.denoiser import Denoiser

PROGRAM = "model.pt2"
DECODER = "decoder.pt2"


class _Program(nn.Module):
    """D of a condition by kind, whose values are not looked at."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        return self.model(x, t, None if cond is None else BoundCondition(cond))


class _JumpProgram(nn.Module):
    """x_s of a condition by kind, whose values are not looked at."""

    def __init__(self, model: FlowMap) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, t: Tensor, s: Tensor, cond: Condition | None = None) -> Tensor:
        return self.model(x, t, s, None if cond is None else BoundCondition(cond))


class _Decoder(nn.Module):
    """Latents (B, *inner) in model units to data units, still continuous, all rows at once."""

    def __init__(self, transform: LatentTransform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, z: Tensor) -> Tensor:
        return self.transform.decode(z)


def write_program(model: Denoiser | FlowMap, folder: Path) -> list[Path]:
    """Write ``model.pt2``: for ``torch.export.load``, the posterior mean D(x, t, cond) of x (B, *inner) in model units
    at times t (B,), in float32, for any number of rows B; cond is the dict of the model's conditions, labels int64 (B,)
    with -1 for none, or None where it has no conditions. Of a flow map it is x_s(x, t, s, cond), where cond has its
    "guidance_scale" (B,) as well, if that is among its inputs. Of a model in latents x are these, and ``decoder.pt2``
    stands beside it, which brings them to data units. Raises ValueError for a network that cannot be traced."""
    if model.event_shape is None:
        raise ValueError("the model does not say what shape its items have: build it with event_shape")
    # Neither 0 nor 1 rows, of which a graph could keep that they are.
    x = torch.zeros(2, *model.transform.inner_shape(model.event_shape))
    t = torch.full((2,), float(model.sde.t_max))
    tree, times = null_tree(x, model.num_classes, model.conditions), [t]
    if isinstance(model, FlowMap):
        times.append(torch.full((2,), float(model.sde.t_min)))
        tree |= {GUIDANCE_SCALE: torch.ones(2)} if model.guidance else {}
    cond = tree or None
    rows = {0: torch.export.Dim("rows")}
    shapes = (rows, *[rows] * len(times), None if cond is None else dict.fromkeys(cond, rows))
    model = model.cpu().eval()
    traced = _JumpProgram(model) if isinstance(model, FlowMap) else _Program(model)
    programs = {PROGRAM: _traced(traced, (x, *times, cond), shapes)}
    if isinstance(model.transform, LatentTransform):
        programs[DECODER] = _traced(_Decoder(model.transform), (x,), (rows,))
    folder.mkdir(parents=True, exist_ok=True)
    for name, program in programs.items():
        torch.export.save(program, folder / name)
    return [folder / name for name in programs]


def _traced(module: nn.Module, inputs: tuple, shapes: tuple) -> torch.export.ExportedProgram:
    try:
        with torch.no_grad():
            return torch.export.export(module, inputs, dynamic_shapes=shapes)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"torch.export cannot trace this network ({reason}): it cannot be a program") from error
