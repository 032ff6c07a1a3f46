"""FIR resampling against scipy's, and its exact properties, in one to three dimensions."""

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn

from sde.networks.resample import TAPS, Resample, resampler

SPACES = [(10,), (6, 8), (4, 6, 8)]


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("up", [False, True])
def test_scipy_along_each_axis(space, up):
    x = random(2, 3, *space)
    expected = x.numpy()
    for axis in range(2, x.ndim):
        taps = np.array([1, 3, 3, 1]) / (4 if up else 8)
        filtered = upfirdn(taps, expected, up=2 if up else 1, down=1 if up else 2, axis=axis)
        size = expected.shape[axis] * 2 if up else expected.shape[axis] // 2
        expected = np.take(filtered, np.arange(1, 1 + size), axis)
    result = Resample(len(space), up).double()(x)
    torch.testing.assert_close(result, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("space", SPACES)
def test_up_is_the_transpose_of_down_times_the_gain(space):
    dims = len(space)
    down, up = Resample(dims).double(), Resample(dims, up=True).double()
    x, y = random(2, 3, *space), random(2, 3, *(size // 2 for size in space)).cos()
    torch.testing.assert_close(2**dims * (down(x) * y).sum(), (x * up(y)).sum())


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("up", [False, True])
def test_constants_and_slopes_away_from_the_border(dims, up):
    layer, size = Resample(dims, up).double(), 8
    inside = (..., *[slice(1, -1)] * dims)
    constant = torch.full((1, 2, *[size] * dims), 3.0, dtype=torch.float64)
    kept = layer(constant)[inside]
    torch.testing.assert_close(kept, torch.full_like(kept, 3.0), rtol=1e-14, atol=0)
    # Positions of the result's samples are the middles of the cells, on either grid.
    middles = torch.arange(size, dtype=torch.float64) + 0.5
    moved = (torch.arange(2 * size) + 0.5) / 2 if up else (torch.arange(size // 2) + 0.5) * 2
    for axis in range(dims):
        along = [size if a == axis else 1 for a in range(dims)]
        slope = layer((middles.view(1, 1, *along)).expand(1, 1, *[size] * dims))
        expected = moved.double().view(1, 1, *[-1 if a == axis else 1 for a in range(dims)]).expand_as(slope)
        torch.testing.assert_close(slope[inside], expected[inside], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_highest_frequency_is_removed(dims):
    wave = (-1.0) ** torch.arange(8)
    x = wave.view(1, 1, -1, *[1] * (dims - 1)).expand(1, 1, *[8] * dims)
    assert (Resample(dims)(x)[(..., *[slice(1, -1)] * dims)] == 0).all()


@pytest.mark.parametrize("fir", [False, True])
@pytest.mark.parametrize("up", [False, True])
def test_channels_stay_apart(fir, up):
    x = torch.zeros(1, 3, 8, 8)
    x[0, 1, 4, 4] = 1
    out = resampler(2, TAPS if fir else None, up)(x)
    assert out[0, 1].abs().sum() > 0
    assert (out[0, [0, 2]] == 0).all()


@pytest.mark.parametrize("space", SPACES)
def test_without_the_filter_cells_are_averaged_and_repeated(space):
    x = random(2, 3, *space)
    mean, repeated = x.numpy(), x.numpy()
    for axis in range(2, x.ndim):
        pairs = (*mean.shape[:axis], mean.shape[axis] // 2, 2, *mean.shape[axis + 1 :])
        mean, repeated = mean.reshape(pairs).mean(axis + 1), repeated.repeat(2, axis)
    torch.testing.assert_close(resampler(len(space))(x), torch.from_numpy(mean))
    assert torch.equal(resampler(len(space), up=True)(x), torch.from_numpy(repeated))


def test_the_filter_is_not_stored():
    assert not Resample(2).state_dict()
