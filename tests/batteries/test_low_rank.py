"""Low-rank updates of every registered network and option: they begin as the network, and merge to rounding."""

import pytest
import torch

from sde.networks.lora import LoRA, add_low_rank, base_names, low_rank_layers, merge_low_rank
from tests.batteries.networks import OWN, VARIANTS, build, inputs, shape_of


@pytest.mark.parametrize("variant", VARIANTS)
def test_updates_begin_as_the_network_and_merge_to_rounding(variant):
    shape = shape_of(variant)
    # torch folds products with weights that are trained in another way.
    network = build(variant, shape, 3).eval().requires_grad_(False)
    (x, c_noise), cond = inputs(shape, 2), {"labels": torch.tensor([-1, 2])}
    names = list(network.state_dict())
    with torch.no_grad():
        before = network(x, c_noise, cond)
        updated = add_low_rank(network, LoRA(2, 3.0))
        assert torch.equal(network(x, c_noise, cond), before), "B is zero: the network, bit for bit"
        assert {*base_names(network).values()} == {*names}
        generator = torch.Generator().manual_seed(0)
        for _, layer in low_rank_layers(network):
            layer.lora_B.weight.normal_(std=0.05, generator=generator)
        moved = network(x, c_noise, cond)
        assert not torch.allclose(moved, before)
        merge_low_rank(network)
        assert list(network.state_dict()) == names
        assert torch.allclose(network(x, c_noise, cond), moved, rtol=1e-3, atol=1e-4 * moved.abs().max().item())
    assert len(updated) > 2


@pytest.mark.parametrize("variant", OWN)
def test_every_update_is_trained_and_nothing_else(variant):
    shape = shape_of(variant)
    network = build(variant, shape, 3)
    add_low_rank(network, LoRA(2))
    for _, layer in low_rank_layers(network):
        torch.nn.init.normal_(layer.lora_B.weight, std=0.05)
    x, c_noise = inputs(shape, 2)
    network(x, c_noise, {"labels": torch.tensor([0, 2])}).square().mean().backward()
    trained = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert all(name.endswith(("lora_A.weight", "lora_B.weight")) for name in trained)
    known = {name for name, p in network.named_parameters() if p.requires_grad}
    # What is for conditions or options that this network is not given has no gradient in itself, either.
    plain = build(variant, shape, 3)
    plain(x, c_noise, {"labels": torch.tensor([0, 2])}).square().mean().backward()
    asked = {name for name, p in plain.named_parameters() if p.grad is not None and p.grad.any()}
    reached = {f"{name.removesuffix('.weight')}.lora_{factor}.weight" for name in asked for factor in "AB"}
    assert known & reached <= trained
