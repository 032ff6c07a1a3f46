"""What all methods of distillation share: padded items, and numbers out of place."""

import re

import pytest
import torch
from torch.nn.functional import conv1d

from samplers import GRIDS, SAMPLERS
from sde import SDES
from sde.distillation import METHODS, FlowMapTeacher, SolvedTeacher
from sde.distillation.method import Lesson
from sde.model.score import ScoreModel
from tests.oracles.planted_map import ExactTeacher, PlantedFlowMap, draws_at

SDE = SDES["vp"]()


def neighbors(x):
    """What a network says of each entry (B, 1, length), which depends on those beside it, and is not 0 where x is."""
    return 0.5 + conv1d(x, torch.tensor([[[0.3, 0.5, 0.2]]], dtype=x.dtype), padding=1)


class NeighborsMap(PlantedFlowMap):
    def mean_denoised(self, x, t, s, cond=None):
        return super().mean_denoised(x, t, s) + neighbors(x)


class NeighborsModel(ScoreModel):
    def forward(self, x, t):
        return neighbors(x)


TEACHERS = {
    "heun": SolvedTeacher(lambda cond: NeighborsModel(SDE), SAMPLERS["heun"]()),
    "student": FlowMapTeacher(NeighborsMap(SDE, 0.1, 0.3)),
}


@pytest.mark.parametrize(
    ("name", "options", "teacher"),
    [
        *(("progressive", {}, teacher) for teacher in TEACHERS),
        *(("consistency", {}, teacher) for teacher in TEACHERS),
        *(("meanflow", {"distilled": True}, teacher) for teacher in TEACHERS),
        ("consistency", {"distilled": False}, None),
        ("ect", {}, None),
        ("meanflow", {"guidance_scale": 2.0, "guidance_mixing": 0.3}, None),
    ],
)
def test_padding_adds_nothing(name, options, teacher):
    """The loss of a padded item is that of its real part, whatever lies behind it, on every step of a solver too."""
    method = METHODS[name](**options)
    student = NeighborsMap(SDE, 0.2, 0.1)

    def losses(x0, z, sizes):
        draws = draws_at(0.6, z)._replace(sizes=sizes)
        lesson = Lesson(0.3, TEACHERS.get(teacher), grid=GRIDS[method.grid])
        return method.loss(student, x0, None, draws, lesson)

    real = torch.randn(4, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = torch.randn(4, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(real, (0, 2))
    alone = losses(real, z, None)
    for behind in (0.0, 7.0):
        noise = torch.nn.functional.pad(z, (0, 2), value=behind)
        torch.testing.assert_close(losses(padded, noise, torch.full((4,), 3)), alone)


@pytest.mark.parametrize(
    ("name", "options", "given", "words"),
    [
        ("progressive", {}, {"grid": GRIDS["karras"]}, "teacher = None"),
        ("progressive", {}, {"teacher": ExactTeacher(SDE)}, "grid = None"),
        ("consistency", {}, {"grid": GRIDS["karras"]}, "teacher = None"),
        ("consistency", {"distilled": False}, {}, "grid = None"),
        ("meanflow", {"distilled": True}, {}, "teacher = None"),
    ],
)
def test_what_a_loss_asks_for(name, options, given, words):
    student, x0 = PlantedFlowMap(SDE), torch.zeros(2, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"{words}: this method's loss asks one"):
        METHODS[name](**options).loss(student, x0, None, draws_at(0.6, x0), Lesson(**given))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("progressive", {"first_steps": 6}, "first_steps = 6: needs a power of two"),
        ("progressive", {"steps": 0}, "steps = 0: needs a power of two"),
        ("progressive", {"steps": 8, "first_steps": 4}, "first_steps = 4: needs at least steps = 8"),
        ("progressive", {"weighting": "snr"}, "weighting = 'snr': needs one of truncated_snr"),
        ("consistency", {"distance": "lpips"}, "distance = 'lpips': needs one of mean_square, pseudo_huber"),
        ("consistency", {"first_intervals": 9, "last_intervals": 8}, "first_intervals = 9 and last_intervals = 8"),
        ("consistency", {"target_decay": 1.5}, "target_decay = 1.5: needs a number from 0 to 1"),
        ("ect", {"base": 0.5}, "base = 0.5: needs a number from 1"),
        ("ect", {"weighting": ""}, "weighting = '': needs one of none, gap, relative_gap"),
        ("meanflow", {"jump_share": 2}, "jump_share = 2: needs a number from 0 to 1"),
        ("meanflow", {"guidance_mixing": 1.0}, "guidance_mixing = 1.0: needs a number from 0 to below 1"),
        ("meanflow", {"distilled": True, "guidance_scale": 2.0}, "guided by a scale of its own"),
    ],
)  # fmt: skip
def test_numbers_out_of_place(name, options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        METHODS[name](**options)
