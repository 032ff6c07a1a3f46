"""Layers over sequences: nothing at first, absent tokens not there, order seen, in every network that takes them."""

import pytest
import torch

from sde.networks import NETWORKS
from sde.networks.attention import Context
from sde.networks.embedding import Embedding
from sde.networks.positions import position_embedding
from sde.networks.sequence import SequenceLayer, SequenceTokens
from tests.batteries.networks import OWN, SMALL

EVENT, FEATURES = (2, 8, 8), 6


def network(name, layers, seed=0):
    torch.manual_seed(seed)
    # Each network attends somewhere.
    told = {"sequence": (4, FEATURES)}
    return NETWORKS[name](EVENT, None, conditions=told, sequence_layers=layers, **SMALL[name]).double().eval()


def randomized(module, seed=1):
    """Weights that are nowhere zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * (p[0].numel() + 1) ** -0.5)
    return module


def inputs(count=2, tokens=4):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, *EVENT, generator=generator, dtype=torch.float64)
    sequence = torch.randn(count, tokens, FEATURES, generator=generator, dtype=torch.float64)
    return x, torch.linspace(-1, 1, count, dtype=torch.float64), sequence


@pytest.mark.parametrize("name", [name for name in OWN if name != "mlp"])
def test_layers_change_nothing_before_training(name):
    plain, layered = randomized(network(name, 0)), network(name, 2, seed=3)
    missing, unexpected = layered.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert missing
    assert all(".transformer." in name for name in missing)
    x, c_noise, sequence = inputs()
    sequence[1, 2:] = torch.nan
    told = {"sequence": sequence}
    assert torch.equal(plain(x, c_noise, told), layered(x, c_noise, told))
    assert torch.equal(plain(x, c_noise), layered(x, c_noise))


@pytest.mark.parametrize("name", OWN)
def test_absent_tokens_are_not_there(name):
    model = randomized(network(name, 1))
    x, c_noise, sequence = inputs()
    longer = torch.cat([sequence, torch.full((2, 3, FEATURES), torch.nan, dtype=x.dtype)], 1)
    # What else is in a token with a NaN does not matter.
    longer[:, 4, 1:] = 1e6
    ends = [model(x, c_noise, {"sequence": told}) for told in (sequence, longer)]
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)
    swapped = model(x, c_noise, {"sequence": sequence.flip(1)})
    assert (swapped - ends[0]).abs().max() > 1e-6, "the order counts"
    null = model(x, c_noise, {"sequence": torch.full_like(sequence, torch.nan)})
    assert torch.equal(null, model(x, c_noise))
    assert (null - ends[0]).abs().max() > 1e-6


@pytest.mark.parametrize("name", OWN)
def test_every_layer_is_trained(name):
    model = randomized(network(name, 2)).train()
    x, c_noise, sequence = inputs()
    model(x, c_noise, {"sequence": sequence}).square().sum().backward()
    layers = {n: p.grad for n, p in model.named_parameters() if ".transformer." in n}
    # A bias of keys shifts all logits alike.
    bad = [n for n, g in layers.items() if g is None or not g.abs().max() > 0]
    assert layers
    assert not bad


def test_a_layer_is_attention_and_two_layers():
    """Written out once more, token by token."""
    torch.manual_seed(0)
    layer, x = SequenceLayer(8, 2).double(), torch.randn(1, 3, 8, dtype=torch.float64)
    mask = torch.tensor([True, True, False]).view(1, 1, 1, 3)
    q, k, v = (part.view(3, 2, 4) for part in layer.qkv(layer.norm(x))[0].split(8, 1))
    mixed = torch.zeros(3, 2, 4, dtype=x.dtype)
    for token in range(3):
        for head in range(2):
            weights = torch.stack([(q[token, head] @ k[other, head] / 2).exp() for other in range(2)])
            mixed[token, head] = (weights[:, None] / weights.sum() * v[:2, head]).sum(0)
    h = x + layer.out(mixed.flatten(1))
    first, up, act, down = layer.layers
    torch.testing.assert_close(layer(x, mask), h + down(act(up(first(h)))))


def test_positions_are_those_of_the_tokens():
    torch.manual_seed(0)
    tokens = randomized(SequenceTokens(FEATURES, 8, 1)).double()
    _, _, sequence = inputs(1)
    context, pooled = tokens(sequence)
    plain = torch.cat([tokens.null[None, None], tokens.layer(sequence)], 1)
    transformer, mask = tokens.transformer, torch.ones(1, 1, 1, 5, dtype=torch.bool)
    h = transformer.norm(transformer.layers[0](plain + position_embedding((5,), 8).double(), mask))
    torch.testing.assert_close(context.tokens, plain + transformer.out(h))
    torch.testing.assert_close(pooled, transformer.pooled(h[:, 0]))
    assert isinstance(context, Context)
    assert context.mask.all()


def test_flat_sequences_may_be_short_or_go_through_layers():
    flat = randomized(Embedding(8, None, {"sequence": (4, FEATURES)}, flat=True)).double()
    x, c_noise, sequence = inputs()
    short = sequence.clone()
    short[:, 2:] = torch.nan
    _, zero, _ = flat(x, c_noise, {"sequence": short.nan_to_num()})
    assert torch.equal(flat(x, c_noise, {"sequence": short})[1], zero), "a token that is absent counts as zero"
    null = flat(x, c_noise, {"sequence": torch.full_like(sequence, torch.nan)})[1]
    assert torch.equal(null, flat(x, c_noise)[1])
    assert not torch.equal(null, zero)
    layered = randomized(Embedding(8, None, {"sequence": (4, FEATURES)}, flat=True, sequence_layers=1)).double()
    assert not layered.vectors
    assert layered(x, c_noise, {"sequence": sequence[:, :3]})[1].shape == (2, 8)


@pytest.mark.parametrize("name", OWN)
def test_a_number_of_layers_below_zero_is_refused(name):
    with pytest.raises(ValueError, match="sequence_layers = -1: needs a number of layers"):
        network(name, -1)
