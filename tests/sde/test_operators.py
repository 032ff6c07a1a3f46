"""Operators: adjoints by their definition, values by independent formulas, refusals."""

import math

import pytest
import torch

from sde.inverse.operators import Blur, CompressedSensing, Grayscale, Mask, SuperResolution

EVENTS = {1: (12,), 2: (8, 12), 3: (3, 8, 12), 4: (2, 4, 6, 8)}


def operators(shape):
    """By name, every operator that takes events of this shape."""
    axes = min(len(shape), 3)
    masks = torch.rand((3, *shape), generator=torch.Generator().manual_seed(1)) < 0.4
    lopsided = torch.rand([3, 5, 1][:axes], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return {
        "mask": Mask(masks[0], shape),
        "a mask a sample": Mask(masks, shape),
        "gray": Grayscale(torch.arange(1, shape[0] + 1).double().tolist()),
        "gaussian": Blur.gaussian(0.8, axes),
        "lopsided": Blur(lopsided),
        "blocks": SuperResolution(2, max(1, len(shape) - 1)),
        "projection": CompressedSensing(shape, 7),
    }


@pytest.mark.parametrize("shape", EVENTS.values(), ids=str)
def test_adjoints(shape, generator):
    for name, operator in operators(shape).items():
        x = torch.randn((3, *shape), generator=generator, dtype=torch.float64)
        measured = operator(x)
        y = torch.randn(measured.shape, generator=generator, dtype=torch.float64)
        left, right = ((a * b).flatten(1).sum(1) for a, b in ((measured, y), (x, operator.adjoint(y))))
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10, msg=name)
        assert operator(x.float()).dtype == torch.float32
        torch.testing.assert_close(operator.rows(slice(1, 2))(x[1:2]), measured[1:2], rtol=1e-12, atol=1e-12, msg=name)


def test_mask_picks_what_is_true_and_broadcasts_over_channels():
    mask = torch.tensor([[True, False], [False, True]])
    x = torch.arange(8.0).view(1, 2, 2, 2)
    operator = Mask(mask, (2, 2, 2))
    assert operator(x).tolist() == [[0, 3, 4, 7]]
    assert operator.adjoint(operator(x)).flatten().tolist() == [0, 0, 0, 3, 4, 0, 0, 7]
    assert operator.restore(-x, operator(x)).flatten().tolist() == [0, -1, -2, 3, 4, -5, -6, 7]


def test_a_mask_for_each_sample():
    masks = torch.tensor([[1, 0, 0, 1], [1, 1, 0, 1], [0, 0, 1, 0]]) > 0
    x = torch.arange(1.0, 13).view(3, 4)
    operator = Mask(masks, (4,))
    y = operator(x)
    assert y.tolist() == [[1, 4, 0], [5, 6, 8], [11, 0, 0]]
    assert operator.adjoint(y).tolist() == [[1, 0, 0, 4], [5, 6, 0, 8], [0, 0, 11, 0]]
    assert operator.restore(-x, y).tolist() == [[1, -2, -3, 4], [5, 6, -7, 8], [-9, -10, 11, -12]]
    last = operator.rows(torch.tensor([2, 2]))
    assert last(x[[2, 2]]).tolist() == [[11, 0, 0]] * 2, "as wide as those of the others"
    x[0, 0] = torch.nan
    assert operator(x)[2].tolist() == [11, 0, 0]
    x[2, 0] = torch.nan
    assert operator(x)[2].tolist() == [11, 0, 0], "what is hidden never shows"
    with pytest.raises(ValueError, match="bound to 3 samples, x has 2"):
        operator(x[:2])


def test_values():
    pixel = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1)
    assert Grayscale()(pixel).item() == pytest.approx(0.299 * 10 + 0.587 * 20 + 0.114 * 30)
    assert SuperResolution(2)(torch.arange(8.0).view(1, 2, 4)).tolist() == [[[2.5, 4.5]]]
    impulse = torch.zeros(1, 1, 15, 15, dtype=torch.float64)
    impulse[..., 7, 7] = 1
    blurred = Blur.gaussian(1.5)(impulse)[0, 0]
    assert blurred.sum().item() == pytest.approx(1)
    assert (blurred[7, 8] / blurred[7, 7]).item() == pytest.approx(math.exp(-0.5 / 1.5**2))
    assert (blurred[9, 8] / blurred[7, 7]).item() == pytest.approx(math.exp(-0.5 * 5 / 1.5**2))
    one = CompressedSensing((50, 50), 400, seed=3)
    assert torch.equal(one.matrix, CompressedSensing((50, 50), 400, seed=3).matrix)
    assert not torch.equal(one.matrix, CompressedSensing((50, 50), 400, seed=4).matrix)
    # Of a million entries, the mean square has a standard error of 0.14 %.
    assert one.matrix.square().mean().item() * 400 == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: Mask(torch.ones(28, 28), (1, 28, 28)), "dtype torch.float32: needs torch.bool"),
    (lambda: Mask(torch.ones(28, 27) > 0, (1, 28, 28)), r"mask has shape \(28, 27\), the data \(1, 28, 28\)"),
    (lambda: Mask(torch.ones(3, 28, 28) > 0, (1, 28, 28)), r"or \(B, 1, 28, 28\), one for each sample"),
    (lambda: Mask(torch.zeros(28, 28) > 0, (1, 28, 28)), "False everywhere"),
    (lambda: Mask(torch.tensor([[True, False], [False, False]]), (2,)), "False for sample 1"),
    (lambda: Mask(torch.ones(2) > 0, (2,))(torch.zeros(1, 3)), r"shape \(2,\), x has events of shape \(3,\)"),
    (lambda: Mask(torch.ones(2) > 0, (2,)).adjoint(torch.zeros(1, 3)), r"y has shape \(1, 3\), the mask observes 2"),
    (lambda: CompressedSensing((4,), 2)(torch.zeros(1, 2, 2)), r"shape \(4,\), x has events of shape \(2, 2\)"),
    (lambda: CompressedSensing((4,), 0), "measurements = 0"),
    (lambda: Grayscale()(torch.zeros(1, 2, 4, 4)), "2 channels, the gray value has 3 weights"),
    (lambda: SuperResolution(3)(torch.zeros(1, 1, 28, 28)), "multiples of 3"),
    (lambda: SuperResolution(2)(torch.zeros(1, 28)), "last 2 axes"),
    (lambda: SuperResolution(0), "factor = 0"),
    (lambda: Blur(torch.ones(2, 3)), "odd sizes"),
    (lambda: Blur(torch.ones(3, 3))(torch.zeros(1, 9)), "2 axes, an event 1"),
    (lambda: Blur.gaussian(0), "std = 0"),
])  # fmt: skip
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()
