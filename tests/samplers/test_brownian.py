"""Brownian noise: increments, refinement, a seed's own path."""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from samplers import GRIDS, generate
from samplers.ancestral import Ancestral
from samplers.noise.brownian import BrownianNoise, make_noise
from samplers.noise.path import BrownianPaths
from sde import VPSDE
from tests.oracles.affine import MEAN, STD
from tests.oracles.exact import Gaussian
from tests.oracles.noises import clock


def test_increments_are_normal_and_independent(process):
    """Mean 0, variance 1, no correlation: of neighboring steps, and of a step with its parts and their sum."""
    times = GRIDS["log_snr"](process, 12)[::4]
    noise, x = BrownianNoise([5], process), torch.empty(1, 20_000, dtype=torch.float64)
    draws = [noise.between(t, s)(x)[0] for t, s in pairwise(times)]
    first = noise.between(times[0], times[1])
    draws += [noise(x)[0], [first(x), first(x)][1][0]]
    table = torch.stack(draws)
    assert table.mean(1).abs().max() < 4 / math.sqrt(20_000)
    torch.testing.assert_close(torch.cov(table), torch.eye(5, dtype=torch.float64), rtol=0, atol=0.05)


def test_smaller_steps_refine_the_same_path(process):
    fine, x = GRIDS["karras"](process, 12), torch.empty(3, 2, dtype=torch.float64)

    def increments(times, noise):
        spans = [(clock(process, t) - clock(process, s)).sqrt() for t, s in pairwise(times)]
        return torch.stack([h * noise.between(t, s)(x) for h, (t, s) in zip(spans, pairwise(times), strict=True)])

    parts = increments(fine, BrownianNoise([3, 4, 5], process))
    for stride in (2, 3, 12):
        whole = increments(fine[::stride], BrownianNoise([3, 4, 5], process))
        sums = parts.view(-1, stride, 3, 2).sum(1)
        torch.testing.assert_close(whole, sums, rtol=1e-6, atol=1e-9)
    # Asked for in any order, as by a callback that goes back.
    noise = BrownianNoise([3, 4, 5], process)
    for i in (7, 2, 9, 3):
        h = (clock(process, fine[i]) - clock(process, fine[i + 1])).sqrt()
        torch.testing.assert_close(h * noise.between(fine[i], fine[i + 1])(x), parts[i], rtol=1e-6, atol=1e-9)


IDENTITY = SimpleNamespace(log_snr=lambda t: -t.log())
"""A process whose clock is its time."""


@pytest.mark.parametrize("end", [1.0, 1 + 2**-20, 1.7, 2 - 2**-21, 123.4])
@pytest.mark.parametrize("step", [0.3, 1e-3, 4e-6, 2.1e-6, 1.3e-6, 0.9e-6, 0.6e-6])
def test_increments_of_the_smallest_steps_have_the_variance_of_a_normal_number(monkeypatch, end, step):
    """Exactly: of unit vectors in the place of the path's normal numbers, an increment has the sum of squares 1."""
    known = {}

    def units(self, nodes, trees, rows, count):
        found = torch.zeros(len(nodes), rows, count, dtype=torch.float64)
        for row, key in enumerate(zip(trees.tolist(), nodes.tolist(), strict=True)):
            found[row, :, known.setdefault(key, len(known))] = 1
        return found

    monkeypatch.setattr(BrownianPaths, "_normals", units)
    t, s = torch.tensor([end, end * (1 - step)], dtype=torch.float64)
    found = BrownianNoise([1], IDENTITY).between(t, s)(torch.empty(1, 200, dtype=torch.float64))
    assert found.square().sum().item() == pytest.approx(1, abs=1e-9)


def test_a_step_below_the_paths_resolution_has_noise_of_its_own():
    t, s = torch.tensor([1.5, 1.5 - 2**-22], dtype=torch.float64)
    x = torch.empty(2, 5)
    noise = BrownianNoise([1, 2], IDENTITY)
    assert torch.equal(noise.between(t, s)(x), BrownianNoise([1, 2], IDENTITY)(x))


def test_a_path_depends_on_its_seed_alone():
    sde = VPSDE()
    t, s = GRIDS["log_snr"](sde, 8)[2:4]
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    rows = BrownianNoise([1, 2, 2**40], sde).between(t, s)(torch.empty(3, 4, 4))
    assert rows.dtype == torch.float32
    assert torch.equal(BrownianNoise([2**40], sde).between(t, s)(torch.empty(1, 4, 4)), rows[2:])
    assert (rows[0] - rows[1]).abs().min() > 0
    start = torch.empty(3, 4)
    assert torch.equal(make_noise("brownian", [1, 2, 3], sde)(start), make_noise("independent", [1, 2, 3], sde)(start))
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()


def test_generate_keeps_a_seeds_path():
    """Whatever the chunks; and twice the steps are nearer than with noise of their own."""
    model = Gaussian(VPSDE(), torch.full((50,), MEAN, dtype=torch.float64), STD)

    def draw(noise, steps, size):
        return generate(model, Ancestral(), 3, (50,), steps=steps, noise=noise, batch_size=size).x

    whole = draw("brownian", 30, 3)
    torch.testing.assert_close(draw("brownian", 30, 2), whole, rtol=0, atol=1e-12)
    near, far = (
        (draw(noise, 60, 3) - draw(noise, 30, 3)).square().mean().sqrt() for noise in ("brownian", "independent")
    )
    assert near < 0.2 * far


def test_brownian_noise_says_what_it_needs():
    t, s = GRIDS["log_snr"](VPSDE(), 8)[2:4]
    with pytest.raises(ValueError, match="2 seeds, x has 3 rows"):
        BrownianNoise([1, 2], VPSDE()).between(t, s)(torch.empty(3, 4))
    with pytest.raises(ValueError, match="noise = 'brown': needs one of independent, brownian"):
        make_noise("brown", [1], VPSDE())
