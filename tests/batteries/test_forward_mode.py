"""Forward-mode derivatives of every network in training, by all that it is told in numbers, against central
differences: what losses of average velocities ask."""

import pytest
import torch
from torch.autograd import forward_ad

from sde import VPSDE, Denoiser
from sde.distillation import FlowMap
from tests.batteries.networks import VARIANTS, build, inputs
from tests.batteries.test_traces import shape_of

STEP = 1e-5
RECOMPUTED = [name for name in VARIANTS if " " not in name and name != "mlp"]


def slope(function, *values):
    """The function's value and derivative along one direction, and the same by central differences."""
    generator = torch.Generator().manual_seed(3)
    along = [torch.randn(v.shape, dtype=v.dtype, generator=generator) for v in values]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(v, d) for v, d in zip(values, along, strict=True)]
        value, found = forward_ad.unpack_dual(function(*duals))
        value = value.clone()
    with torch.no_grad():
        ends = [function(*(v + e * d for v, d in zip(values, along, strict=True))) for e in (STEP, -STEP)]
    return value, found, (ends[0] - ends[1]) / (2 * STEP)


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_derivatives_are_those_of_differences(variant):
    shape = shape_of(variant)
    network = build(variant, shape, **({} if variant in ("diffusers",) else {"dropout": 0.0})).double().train()
    x, c_noise = inputs(shape, 2, torch.float64)
    value, found, differences = slope(lambda x, c: network(x, c, None), x, c_noise)
    assert differences.abs().max() > 1e-3
    torch.testing.assert_close(found, differences, rtol=1e-5, atol=1e-6 * differences.abs().max().item())
    # The same pass is differentiated by the parameters.
    parameters = [*network.parameters()]
    through = torch.autograd.grad(value.square().sum(), parameters, allow_unused=True)
    plain = torch.autograd.grad(network(x, c_noise, None).square().sum(), parameters, allow_unused=True)
    for ours, theirs in zip(through, plain, strict=True):
        assert ours is None if theirs is None else torch.allclose(ours, theirs, rtol=1e-8, atol=1e-10)
