"""Low-rank updates of layers: the formula, its gradients, which layers are updated, and what merging leaves."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from sde.networks import UNet
from sde.networks.lora import (
    LoRA,
    LowRank,
    add_low_rank,
    base_names,
    layers_of,
    low_rank_layers,
    merge_low_rank,
    targeted,
)

DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def with_update(layer, rank=3, scale=0.7, seed=1):
    """The layer in float64 with an update whose B is not zero."""
    updated = LowRank(layer.double(), rank, scale)
    updated.lora_B.weight.data = normal(*updated.lora_B.weight.shape, seed=seed)
    return updated


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 4), (2, 7, 5)),
        (nn.Linear(5, 4, bias=False), (2, 5)),
        (nn.Conv1d(4, 6, 3, stride=2, padding=1, padding_mode="circular"), (2, 4, 9)),
        (nn.Conv2d(4, 6, (3, 1), stride=(1, 2), padding="valid", dilation=(2, 1)), (2, 4, 7, 8)),
        (nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect"), (2, 4, 7, 8)),
        (nn.Conv3d(4, 5, 2, padding=1), (2, 4, 3, 4, 5)),
    ],
)
def test_a_layer_with_an_update_is_the_layer_of_the_updated_weight(layer, shape):
    updated, x = with_update(layer), normal(*shape, seed=2)
    a, b = updated.lora_A.weight, updated.lora_B.weight
    # Written out once more: (alpha / r) sum over k of B_ok A_k...
    weight = layer.weight + 0.7 * torch.einsum("ok,k...->o...", b.flatten(1), a)
    plain = copy.deepcopy(layer)
    plain.weight = nn.Parameter(weight)
    assert torch.allclose(updated(x), plain(x), atol=1e-12)
    assert torch.allclose(updated.weight, weight, atol=1e-12)


def test_gradients_are_those_of_the_full_weight_projected():
    """Of the mean of |W x - y|^2 / 2 the gradient by W is G = (W x - y) x^T / n, and with W = W_0 + s B A those by A
    and B are s B^T G and s G A^T: a first step of B alone, as B is 0 there, changes W by - lr s^2 G A^T A."""
    layer, scale = nn.Linear(6, 5, bias=False).double(), 0.5
    x, y = normal(40, 6), normal(40, 5, seed=3)
    updated = with_update(layer, rank=2, scale=scale)
    a, b = updated.lora_A.weight, updated.lora_B.weight
    full = (x @ updated.weight.T - y).T @ x / len(x)
    ((updated(x) - y).square().sum(1).mean() / 2).backward()
    assert torch.allclose(b.grad, scale * full @ a.T, atol=1e-12)
    assert torch.allclose(a.grad, scale * b.T @ full, atol=1e-12)
    assert layer.weight.grad is None

    updated = LowRank(nn.Linear(6, 5, bias=False).double(), 2, scale)
    before, a = updated.weight.detach().clone(), updated.lora_A.weight.detach()
    full = (x @ before.T - y).T @ x / len(x)
    ((updated(x) - y).square().sum(1).mean() / 2).backward()
    assert not updated.lora_A.weight.grad.any()
    torch.optim.SGD([p for p in updated.parameters() if p.requires_grad], lr=0.1).step()
    assert torch.allclose(updated.weight - before, -0.1 * scale**2 * full @ a.T @ a, atol=1e-12)


def test_alpha_over_rank_is_the_scale():
    assert LoRA(8).scale == 1
    assert LoRA(8, 2.0).scale == 0.25
    network = nn.Sequential(nn.Linear(3, 3))
    add_low_rank(network, LoRA(4, 6.0))
    assert network[0].scale == 1.5


def test_entries_of_a_keep_the_variance_of_their_inputs():
    a = LowRank(nn.Conv2d(64, 8, 3), 256).lora_A.weight
    assert a.var().item() == pytest.approx(1 / (64 * 9), rel=0.02)


@pytest.mark.parametrize(
    ("options", "words"),
    [((0,), "rank = 0"), ((4, -1.0), "alpha = -1"), ((4, float("nan")), "alpha = nan")],
)
def test_numbers_that_are_none_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        LoRA(*options)


def unet(**options):
    torch.manual_seed(0)
    own = {"channels": 8, "num_res_blocks": 1, "channel_mult": (1, 2), "attention_resolutions": (4,), **options}
    return UNet((1, 8, 8), None, **own)


def test_targets_are_all_layers_those_of_attention_or_names():
    network = unet()
    everything = layers_of(network)
    kinds = (nn.Linear, nn.Conv2d)
    assert {*everything} == {name for name, module in network.named_modules() if isinstance(module, kinds)}
    attention = targeted(network, ["attention"])
    assert attention
    assert {*attention} < {*everything}
    assert {name.rpartition(".")[2] for name in attention} == {"qkv", "out"}
    assert {*targeted(network, ["qkv"])} == {name for name in everything if name.endswith(".qkv")}
    one = next(iter(attention))
    assert [*targeted(network, [one])] == [one]
    assert [*targeted(network, ["attention", "all"])] == [*everything]


@pytest.mark.parametrize(
    ("target", "words"),
    [("qvk", "did you mean qkv"), ("kv", "no linear layer .* ends so; did you mean qkv"), ("", "they end in")],
)
def test_a_target_that_names_nothing_is_refused(target, words):
    with pytest.raises(ValueError, match=f"targets = '{target}': .*{words}"):
        targeted(unet(), ["attention", target])


def test_attention_of_a_network_without_any_is_refused():
    with pytest.raises(ValueError, match="this network has no attention; take all"):
        targeted(nn.Sequential(nn.Linear(2, 2)), ["attention"])


def test_layers_that_are_not_what_their_class_says_are_left_alone():
    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    network = nn.ModuleDict(
        {
            "plain": nn.Linear(2, 2),
            "twice": Twice(2, 2),
            "normed": weight_norm(nn.Linear(2, 2)),
            "depthwise": nn.Conv1d(4, 4, 3, groups=4),
            "transposed": nn.ConvTranspose1d(4, 4, 2),
        }
    )
    assert [*layers_of(network)] == ["plain"]


def test_the_base_is_frozen_and_named_as_before():
    network = unet()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    names = add_low_rank(network, LoRA(2))
    assert [name for name, _ in low_rank_layers(network)] == names
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {f"{name}.lora_{factor}.weight" for name in names for factor in "AB"}
    held, state = base_names(network), network.state_dict()
    assert {*held.values()} == {*before}
    assert {*state} - {*held} == trained
    assert all(torch.equal(state[name], before[old]) for name, old in held.items())


def test_merging_leaves_the_network_that_there_was():
    network, x = unet(), torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    names, c_noise = [*network.state_dict()], torch.zeros(3)
    add_low_rank(network, LoRA(2, 3.0))
    for _, layer in low_rank_layers(network):
        layer.lora_B.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    expected = network(x, c_noise)
    merge_low_rank(network)
    assert [*network.state_dict()] == names
    assert torch.allclose(network(x, c_noise), expected, atol=1e-5 * expected.abs().max().item())


def test_a_weight_that_layers_share_is_updated_in_each_by_its_own():
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    network, x = nn.Sequential(first, second, first), normal(2, 3).float()
    add_low_rank(network, LoRA(2))
    assert network[0] is network[2]
    for _, layer in low_rank_layers(network):
        nn.init.normal_(layer.lora_B.weight)
    expected = network(x)
    assert torch.allclose(merge_low_rank(network)(x), expected, atol=1e-5)


def test_half_precision_is_merged_in_full():
    layer = nn.Linear(64, 64, bias=False).to(torch.bfloat16)
    updated = LowRank(layer, 16)
    nn.init.normal_(updated.lora_B.weight)
    wide = layer.weight.double() + updated.lora_B.weight.double() @ updated.lora_A.weight.double()
    assert torch.equal(merge_low_rank(nn.Sequential(updated))[0].weight, wide.float().bfloat16())
