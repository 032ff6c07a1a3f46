"""What all methods of distillation share: padded items, and numbers out of place."""

import re

import pytest
import torch

from samplers import GRIDS
from sde import SDES
from sde.distillation import METHODS
from tests.oracles.planted_map import ExactTeacher, PlantedFlowMap, draws_at


@pytest.mark.parametrize("name", METHODS)
def test_padding_adds_nothing(name):
    """The loss of a padded item is that of its real part, whatever lies behind it."""
    sde = SDES["vp"]()
    method = METHODS[name]()
    student = PlantedFlowMap(sde, 0.2, 0.1)

    def losses(x0, z, sizes):
        draws = draws_at(0.6, z)._replace(sizes=sizes)
        return method.loss(student, x0, None, draws, 0.3, teacher=ExactTeacher(sde), grid=GRIDS[method.grid])

    real = torch.randn(4, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = torch.randn(4, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(real, (0, 2))
    alone = losses(real, z, None)
    for behind in (0.0, 7.0):
        noise = torch.nn.functional.pad(z, (0, 2), value=behind)
        torch.testing.assert_close(losses(padded, noise, torch.full((4,), 3)), alone)


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
