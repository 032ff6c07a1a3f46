"""Dropout: a Bernoulli mask, whatever the layout, and its own gradient."""

import pytest
import torch

from sde.networks.dropout import Dropout

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
def test_entries_are_zero_with_probability_p_and_else_scaled(p, layout):
    x = torch.ones(7, 5, 33, 31).contiguous(memory_format=LAYOUTS[layout])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        out = Dropout(p)(x)
    kept = out != 0
    assert out[kept].unique() == pytest.approx(1 / (1 - p), rel=2**-13)
    n = x.numel()
    assert abs(kept.sum().item() - n * (1 - p)) < 4 * (n * p * (1 - p)) ** 0.5
    # Neighbors share a random word: they are independent all the same.
    lanes = kept.permute(0, 2, 3, 1).flatten() if layout == "channels_last" else kept.flatten()
    for lag in (1, 2, 3):
        both = (lanes[lag:] & lanes[:-lag]).float().mean().item()
        assert both == pytest.approx((1 - p) ** 2, abs=4 * ((1 - p) ** 2 / n) ** 0.5)


def test_each_of_the_lanes_of_a_word_has_the_same_probability():
    kept = Dropout(0.25)(torch.ones(400_000)).view(-1, 4) != 0
    torch.testing.assert_close(kept.float().mean(0), torch.full((4,), 0.75), atol=4 * (0.1875 / 1e5) ** 0.5, rtol=0)


def test_gradient_and_layout_are_those_of_a_product_with_the_mask():
    x = torch.randn(3, 4, 6, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = Dropout(0.4)(x)
    assert out.stride() == x.stride()
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient * x, out)
    assert Dropout(0.4)(x.bfloat16()).dtype == torch.bfloat16


def test_evaluation_and_zero_are_the_identity_and_one_is_zero():
    x = torch.randn(3, 4)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert not Dropout(1.0)(x).any()


def test_the_mask_follows_the_seed():
    masks = []
    for seed in (3, 3, 4):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            masks.append(Dropout(0.5)(torch.ones(50)))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_mistakes(p):
    with pytest.raises(ValueError, match=f"dropout = {p}: needs a probability"):
        Dropout(p)
