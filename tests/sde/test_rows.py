"""Rows of bound models: a part is told what its samples are told, keeps every option, and leaves the whole as it is."""

import pytest
import torch

from sde import VPSDE
from sde.guidance import (
    Autoguidance,
    Classifier,
    ClassifierFree,
    Conditional,
    DynamicThreshold,
    Guidance,
    GuidanceInterval,
    GuidanceRescale,
    LikelihoodGuidance,
    StaticThreshold,
)
from sde.inverse import DPS, MMPS, Mask, PiGDM, Replacement
from tests.oracles.by_class import Bayes, ByClass

COUNT = 5
LABELS = torch.arange(COUNT) % 3
Y = torch.linspace(-1, 1, COUNT, dtype=torch.float64)[:, None]


def wrapped():
    """One of each wrapper, with options that are not the defaults; those around others are around guided ones."""
    model = ByClass(VPSDE())
    free = ClassifierFree(model, LABELS, 2.5, (LABELS + 1) % 3, batched=False)
    masks = torch.stack([torch.tensor([i % 2 == 0, i % 2 == 1]) for i in range(COUNT)])
    mask = Mask(masks, (2,))
    return [
        Conditional(model, LABELS),
        free,
        Autoguidance(free, Conditional(model, LABELS.flip(0)), 1.5),
        Classifier(free, Bayes(model.sde), LABELS, 0.7),
        LikelihoodGuidance(free, lambda x, t, y: -(x - y["at"]).square().sum(1), {"at": Y}, 0.3, "denoised"),
        GuidanceInterval(free, 0.1, 20.0),
        GuidanceRescale(free, 0.4),
        DynamicThreshold(free, 0.5, -0.2, 0.3),
        StaticThreshold(free, -0.2, 0.3),
        Replacement(free, mask, Y),
        DPS(free, mask, Y, 0.1, 0.7, 0.9),
        PiGDM(free, mask, Y, 0.1, 0.9, 3),
        MMPS(free, mask, Y, 0.1, 3),
    ]


@pytest.mark.parametrize("model", wrapped(), ids=lambda model: type(model).__name__)
def test_a_part_is_the_whole_of_its_samples(model):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(COUNT, 2, generator=generator, dtype=torch.float64)
    t = torch.linspace(0.2, 0.8, COUNT, dtype=torch.float64)
    before, index = model(x, t), torch.tensor([3, 0, 3])
    for rows in (index, slice(1, 4)):
        part = model.rows(rows)
        assert type(part) is type(model)
        torch.testing.assert_close(part(x[rows], t[rows]), before[rows], rtol=1e-9, atol=1e-9)
        if isinstance(model, Guidance):
            for found, expected in zip(part.pair(x[rows], t[rows]), model.pair(x, t), strict=True):
                torch.testing.assert_close(found, expected[rows], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(part.rows(slice(0, 1))(x[rows][:1], t[rows][:1]), before[rows][:1])
        options = {name: held for name, held in vars(model).items() if not name.startswith("_")}
        kept = {name for name in options if vars(part)[name] is options[name]}
        assert options.keys() - kept <= {*model.with_rows}, "every option is kept"
    assert torch.equal(model(x, t), before), "the whole is as it was"


def test_a_model_that_is_bound_to_nothing_is_its_own_part():
    model = ByClass(VPSDE())
    assert model.rows(slice(0, 1)) is model
