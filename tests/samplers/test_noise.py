"""Noise of samples: uniform numbers beside normal ones, streams that padding does not move, constraints, one door."""

from dataclasses import dataclass

import pytest
import torch

from samplers import DDIM, SAMPLERS, SeededNoise, generate
from samplers.noise.brownian import BrownianNoise
from samplers.noise.door import as_noise
from sde import VPSDE
from tests.oracles.exact import Gaussian


def test_uniform_numbers_do_not_move_normal_ones():
    x = torch.empty(2, 3, 4)
    alone, mixed = SeededNoise([1, 2]), SeededNoise([1, 2])
    first = mixed.uniform(x)
    torch.testing.assert_close(mixed(x), alone(x), rtol=0, atol=0)
    second = mixed.uniform(x.long())
    torch.testing.assert_close(mixed(x), alone(x), rtol=0, atol=0)
    torch.testing.assert_close(alone.uniform(x), first, rtol=0, atol=0)
    torch.testing.assert_close(alone.uniform(x), second, rtol=0, atol=0)
    assert first.dtype == torch.float64
    assert not torch.equal(first, second)
    torch.testing.assert_close(SeededNoise([2]).uniform(x[1:]), first[1:], rtol=0, atol=0)


def test_uniform_numbers_are_uniform():
    numbers = SeededNoise(range(20)).uniform(torch.empty(20, 5000)).flatten()
    assert 0 <= numbers.min() < 1e-3
    assert 1 - 1e-3 < numbers.max() < 1
    for power in (1, 2, 3):
        assert numbers.pow(power).mean().item() == pytest.approx(1 / (power + 1), abs=0.004)
    # Beside the normal ones of the same seed.
    normal = SeededNoise(range(20))(torch.empty(20, 5000)).double().flatten()
    assert torch.corrcoef(torch.stack([numbers, normal]))[0, 1].abs() < 0.015


@pytest.mark.parametrize("kind", ["independent", "brownian"])
def test_a_stream_does_not_depend_on_the_padding(kind):
    """Samples of sizes 2 and 3 in a batch padded to 3 or to 6, over several draws."""
    sizes, times = [2, 3], torch.tensor([0.9, 0.6, 0.3], dtype=torch.float64)
    found = []
    for padded in (3, 6):
        noise = SeededNoise([5, 6], sizes) if kind == "independent" else BrownianNoise([5, 6], VPSDE(), sizes)
        x = torch.empty(2, 4, padded)
        draws = [noise(x), noise.uniform(x), noise.between(times[0], times[1])(x), noise.between(*times[1:])(x)]
        for draw in draws:
            assert draw.shape == x.shape
            assert (draw[0, :, 2:] == 0).all()
            assert (draw[1, :, 3:] == 0).all()
        found.append([draw[:, :, :3] for draw in draws])
    for short, long in zip(*found, strict=True):
        assert torch.equal(short, long)
        assert (short[0, :, :2] != 0).all()


def test_sizes_pass_through_generate():
    """Padding carries no noise, and a sample is the same however far it is padded."""
    sizes, found = [1, 3, 2, 2], []
    for padded in (3, 5):
        model = Gaussian(VPSDE(), torch.zeros(2, padded, dtype=torch.float64), 1.0)
        drawn = generate(model, SAMPLERS["ancestral"](), 4, (2, padded), steps=4, sizes=sizes, batch_size=2)
        assert drawn.sizes.tolist() == sizes
        for x, size in zip(drawn.x, sizes, strict=True):
            assert (x[:, size:] == 0).all()
            assert (x[:, :size] != 0).all()
        found.append(drawn.x[:, :, :3])
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)
    for bad, words in (([1, 2], "2 numbers for 4 items"), ([1, 2, 3, 9], "sizes = 9: needs an integer from 1 to 5")):
        with pytest.raises(ValueError, match=words):
            generate(model, DDIM(), 4, (2, 5), sizes=bad)


@dataclass(frozen=True)
class Centered(VPSDE):
    """Points whose center of mass is fixed at zero: noise (B, points, 2) has none."""

    def constrain(self, noise):
        return noise - noise.mean(1, keepdim=True)


@pytest.mark.parametrize("noise", ["independent", "brownian"])
@pytest.mark.parametrize("name", ["ancestral", "ddim", "euler_maruyama", "pc"])
def test_a_constraint_reaches_every_draw(name, noise):
    model = Gaussian(Centered(), torch.zeros(5, 2, dtype=torch.float64), 1.0)
    x = generate(model, SAMPLERS[name](), 3, (5, 2), steps=5, noise=noise).x
    assert x.mean(1).abs().max() < 1e-6
    assert x.std() > 0.3


def test_one_door_of_noise():
    """A plain callable serves every step; what knows steps is asked for each."""
    noise = as_noise(torch.zeros_like, VPSDE())
    assert as_noise(noise, VPSDE()) is noise
    t = torch.tensor(0.5)
    assert noise.between(t, t) is noise
    with pytest.raises(TypeError, match=r"noise = zeros_like: .* give a noise with uniform"):
        noise.uniform(torch.ones(2))
    step = as_noise(BrownianNoise([3], VPSDE()), VPSDE()).between(t, torch.tensor(0.2))
    x = torch.empty(1, 4)
    assert torch.equal(step.uniform(x), SeededNoise([3]).uniform(x))
