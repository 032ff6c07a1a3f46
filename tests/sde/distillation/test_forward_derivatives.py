"""Derivatives in forward mode through recomputed activations, dropout and compiled bodies."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from sde import SDES, Denoiser
from sde.distillation import FlowMap
from sde.distillation.meanflow import MeanFlow, identity_residual
from sde.distillation.method import Lesson
from sde.model.call import call_network
from sde.networks import MLP, DiT, UNet
from sde.process.coefficients import combine
from tests.oracles.planted_map import draws_at

SDE = SDES["vp"]()
X0 = torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Z = torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def student(network) -> FlowMap:
    found = FlowMap.of(Denoiser(network, SDE, event_shape=(1, 4, 4))).double().train()
    torch.manual_seed(2)
    for parameter in found.parameters():
        nn.init.normal_(parameter, std=0.2)
    return found


def gradients(model) -> list:
    torch.manual_seed(3)
    losses = MeanFlow(jump_share=1.0).loss(model, X0, None, draws_at(0.6, Z), Lesson())
    return [losses.detach(), *torch.autograd.grad(losses.sum(), [*model.parameters()], allow_unused=True)]


def same(ours, theirs):
    return all(a is b is None or torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", [UNet, DiT])
def test_recomputed_activations_change_nothing(kind):
    options = {"channels": 8, "num_res_blocks": 1, "attention_resolutions": (2,)} if kind is UNet else {
        "width": 12, "depth": 2, "heads": 2, "patch_size": 2}  # fmt: skip
    found = [
        gradients(student(kind((1, 4, 4), None, activation_checkpointing=recomputed, **options)))
        for recomputed in (False, True)
    ]
    assert same(*found)


def test_compiled_networks_are_asked_as_they_were():
    """torch.compile drops what rides on the values: a compiled body would have no derivative, or a wrong one."""
    model = student(UNet((1, 4, 4), None, channels=8, num_res_blocks=1))
    plain = gradients(model)
    calls = []

    def compiled(*inputs):
        calls.append(1)
        return model.network._call_impl(*(v.detach() for v in inputs if v is not None))

    model.network._compiled_call_impl = compiled
    assert same(gradients(model), plain)
    assert not calls
    model.eval()
    with torch.no_grad():
        model(X0, torch.full((3,), 0.6).double(), torch.full((3,), 0.2).double())
    assert calls


@pytest.mark.parametrize(
    "network", [MLP((6,), None, width=16, layers=1), DiT((1, 4, 4), None, width=12, depth=1, heads=2)]
)
def test_on_the_cpu_they_are_in_full_precision(network):
    """Under autocast a normalization's derivative there has another dtype than its value."""
    shape = (6,) if isinstance(network, MLP) else (1, 4, 4)
    model = FlowMap.of(Denoiser(network, SDE)).train()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    x0, draws = torch.randn(3, *shape), draws_at(0.6, torch.randn(3, *shape))
    found = []
    for precision in (None, torch.bfloat16):
        model.autocast = precision
        losses = MeanFlow(jump_share=1.0).loss(model, x0, None, draws, Lesson())
        found.append([losses.detach(), *torch.autograd.grad(losses.sum(), [*model.parameters()])])
    assert same(*found)
    assert found[0][0].isfinite().all()


def test_dropout_masks_are_one_for_values_and_derivatives():
    """The derivative is that of the very function whose value is returned: with the masks of a seed, by differences."""
    model = student(UNet((1, 4, 4), None, channels=8, num_res_blocks=1, dropout=0.5))
    t, s = (torch.full((3,), end, dtype=torch.float64) for end in (0.6, 0.2))
    x = SDE.perturb(X0, t, Z)

    def mean(x, t):
        torch.manual_seed(4)
        return model.mean_denoised(x, t, s)

    torch.manual_seed(4)
    value, residual = identity_residual(model, x, t, s, None, X0)
    torch.testing.assert_close(value, mean(x, t))
    # R = (rho_s / rho_t) (M - D) + (rho_t - rho_s) dM/drho, by differences in rho along x + (rho - rho_t) dx/drho.
    rho, end = (1 / (1 + 1 / SDE.noise_level(u)) for u in (t, s))
    step = 1e-5
    ends = []
    with torch.no_grad():
        for sign in (1, -1):
            moved = SDE.t_of_noise_level((rho + sign * step) / (1 - rho - sign * step))
            ends.append(mean(SDE.perturb(X0, moved, Z), moved))
    change = (ends[0] - ends[1]) / (2 * step)
    expected = combine(end / rho, value - X0, rho - end, change)
    torch.testing.assert_close(residual, expected.detach(), rtol=1e-5, atol=1e-6)


def test_a_network_without_forward_derivatives_is_refused():
    """What it loses would be taken for zero."""

    class Detached(nn.Module):
        num_classes = None

        def __init__(self):
            super().__init__()
            self.inner = UNet((1, 4, 4), None, channels=8, num_res_blocks=1)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x, c_noise, cond=None):
            return self.scale * self.inner(x.detach(), c_noise.detach(), cond)

    t = torch.full((3,), 0.6, dtype=torch.float64)
    with pytest.raises(ValueError, match="no derivative in forward mode"), forward_ad.dual_level():
        call_network(Detached().double(), forward_ad.make_dual(X0, Z), 1.0, t, None, autocast=None)
