"""Derivatives of every network, and activations that are computed again instead of kept."""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from score_sde.config.schema import options_of
from sde.networks import NETWORKS
from sde.networks.attention import SelfAttention
from sde.networks.blocks import ResidualBlock
from sde.networks.dit import DiTBlock
from sde.networks.hdit_layers import HDiTLayer
from sde.networks.linear_attention import LinearAttention, MemoryAttention, ModulatedBlock
from sde.networks.mapped_blocks import MappedStage
from tests.batteries.networks import VARIANTS, build, fresh, inputs, shape_of

BLOCKS = (
    ResidualBlock,
    SelfAttention,
    DiTBlock,
    ModulatedBlock,
    LinearAttention,
    MemoryAttention,
    HDiTLayer,
    MappedStage,
)
"""What networks with the option ``activation_checkpointing`` compute twice."""

RECOMPUTING = [v for v, (name, _) in VARIANTS.items() if "activation_checkpointing" in options_of(NETWORKS[name])]


def body(variant):
    """A random network in double precision as a function of x (2, *shape), and an x."""
    network = build(variant, shape_of(variant)).double().eval()
    x, c_noise = inputs(shape_of(variant), 2, torch.float64)
    return lambda x: network(x, c_noise, None), x


@pytest.mark.parametrize("variant", VARIANTS)
def test_batched_products_are_those_of_one_direction_at_a_time(variant):
    function, x = body(variant)
    directions = torch.randn(3, *x.shape, dtype=torch.float64)
    x.requires_grad_()
    out = function(x)
    (batched,) = torch.autograd.grad(out, x, directions, retain_graph=True, is_grads_batched=True)
    each = [torch.autograd.grad(out, x, direction, retain_graph=True)[0] for direction in directions]
    torch.testing.assert_close(batched, torch.stack(each))
    along = torch.func.jvp(function, (x.detach(),), (directions[0],))[1]
    torch.testing.assert_close((along * directions[1]).sum(), (directions[0] * each[1]).sum())
    torch.testing.assert_close(torch.func.vjp(function, x.detach())[1](directions[2])[0], each[2])


@pytest.mark.parametrize("variant", VARIANTS)
def test_second_derivatives(variant):
    function, x = body(variant)
    direction, step = torch.randn_like(x), 1e-5

    def gradient(x, create_graph=False):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(function(x).sin().sum(), x, create_graph=create_graph)[0], x

    first, start = gradient(x, create_graph=True)
    (second,) = torch.autograd.grad((first * direction).sum(), start)
    difference = (gradient(x + step * direction)[0] - gradient(x - step * direction)[0]) / (2 * step)
    assert second.abs().max() > 1e-3
    torch.testing.assert_close(second, difference, rtol=1e-4, atol=1e-4 * second.abs().max().item())


def traced(network, x, c_noise):
    """Output and gradients of a forward and backward pass from seed 3, and how often each block was called."""
    blocks = [module for module in network.modules() if isinstance(module, BLOCKS)]
    called = dict.fromkeys(blocks, 0)

    def count(module, args):
        called[module] += 1

    handles = [block.register_forward_pre_hook(count) for block in blocks]
    network.zero_grad()
    torch.manual_seed(3)
    out = network(x, c_noise, None)
    out.square().sum().backward()
    for handle in handles:
        handle.remove()
    return out.detach(), [p.grad.clone() for p in network.parameters()], set(called.values())


@pytest.mark.parametrize("variant", RECOMPUTING)
def test_recomputed_activations_change_nothing(variant):
    shape = shape_of(variant)
    plain, sparing = (build(variant, shape, dropout=0.5, activation_checkpointing=on).double() for on in (False, True))
    x, c_noise = inputs(shape, 2, torch.float64)
    out, gradients, once = traced(plain, x, c_noise)
    again, same, twice = traced(sparing, x, c_noise)
    assert not torch.equal(plain(x, c_noise), out), "dropout draws"
    torch.testing.assert_close(again, out, rtol=0, atol=0)
    torch.testing.assert_close(same, gradients, rtol=1e-9, atol=1e-9)
    assert (once, twice) == ({1}, {2}), "every block, and only with the option"
    assert traced(sparing.eval(), x, c_noise)[2] == {1}, "in training only"


class Alive(TorchDispatchMode):
    """Bytes of what was computed under it and still is in memory."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage()
            self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return out

    def bytes(self):
        return sum(size for reference, size in self.storages.values() if not reference.expired())


@pytest.mark.parametrize("variant", RECOMPUTING)
def test_recomputed_activations_take_less_memory(variant):
    def kept(checkpointing):
        network, x, c_noise = (
            fresh(variant, (2, 32, 32), activation_checkpointing=checkpointing),
            *inputs((2, 32, 32), 8),
        )
        with Alive() as alive:
            out = network(x, c_noise, None)
        assert out.requires_grad
        return alive.bytes()

    assert kept(True) < 0.5 * kept(False)
