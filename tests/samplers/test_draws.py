"""The streams behind all noise: numpy's words everywhere, blocks that nobody sees, the law far out and near 0."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import torch
from torch.special import ndtr

from samplers import GRIDS, SAMPLERS, SeededNoise, generate
from samplers.likelihood.divergence import draw_probes
from samplers.noise import draws
from samplers.noise.brownian import BrownianNoise
from samplers.noise.laws import NORMAL, SIGNS
from samplers.noise.path import BrownianPaths
from samplers.noise.philox import Philox
from samplers.noise.seeded import PROBES, item_seeds
from sde import VPSDE, Denoiser
from sde.networks import MLP
from tests.oracles import philox
from tests.oracles import simulated_device as sim

SEEDS = [3, 2**40, 7, 0, 5]
CPU = torch.device("cpu")
simulated = pytest.mark.skipif(not sim.available, reason="this torch has no interface for devices written in Python")


@pytest.fixture(scope="module", autouse=True)
def device():
    if sim.available:
        sim.install()


def test_the_formula_makes_the_words_of_numpy():
    """At any counter of four words, for rows of any keys."""
    generator = np.random.default_rng(1)
    counters = [(1, 0, 0, 0), (2**32 - 1, 1, 2, 3), *generator.integers(1, 2**63 - 1, (4, 4)).tolist()]
    streams = Philox(SEEDS)
    found = streams.there([torch.tensor(part)[:, None, None] for part in zip(*counters, strict=True)], range(5), CPU)
    for (low, *rest), rows in zip(counters, found.numpy().view(np.uint64), strict=True):
        for i, (seed, row) in enumerate(zip(SEEDS, rows, strict=True)):
            expected = philox.words(seed, 4, (low - 1, *rest))
            assert (row == expected).all()
            assert (streams.here(i, (low - 1, *rest), 1).random_raw(3) == expected[1:]).all()


def test_draws_are_one_stream_each():
    """Words in their order, two normal numbers each, whatever the shapes; an odd number leaves half a word."""
    noise, shapes = SeededNoise(SEEDS), [(5, 3), (5, 3), (5, 2, 2), (5,), (5, 3), (5, 33, 31), (5, 3)]
    normal = [noise(torch.empty(shape, dtype=torch.float64)) for shape in shapes]
    uniform = [noise.uniform(torch.empty(shape)) for shape in shapes]
    for i, seed in enumerate(SEEDS):
        key = np.random.Generator(np.random.Philox(seed).jumped())
        raw, at = philox.words(seed, 3000), 0
        for shape, z, u in zip(shapes, normal, uniform, strict=True):
            count = math.prod(shape[1:])
            taken = -(-count // 2)
            expected = philox.normals(raw[at : at + taken])[:count]
            np.testing.assert_allclose(z[i].flatten(), expected.astype(np.float32), rtol=2e-7, atol=0)
            np.testing.assert_array_equal(u[i].flatten(), key.random(count))
            at += taken


def test_probes_are_bits():
    found = draw_probes((3, 50), 2, 4, 1)
    for i, seed in enumerate(item_seeds(4, PROBES, 3, 1)):
        key = np.random.Philox(seed)
        bits = np.random.Philox(key=key.state["state"]["key"], counter=np.array((0, 0, 2, 0), np.uint64)).random_raw(2)
        for k in range(2):
            assert found[k, i].tolist() == [2.0 * (int(bits[k]) >> j & 1) - 1 for j in range(50)]


@pytest.mark.parametrize("sizes", [None, [2, 9, 4, 1, 7]])
def test_blocks_are_seen_by_nobody(monkeypatch, sizes):
    """However many draws are made ahead, in however many parts; a change of place gives back what is ahead."""
    x = torch.empty(5, 3, 9, 9)

    def run():
        noise = SeededNoise(SEEDS, sizes)
        found = [noise(x), noise(x), noise.uniform(x), noise(x.double()).float(), noise(x), noise.uniform(x)]
        times = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
        path = BrownianNoise(SEEDS, VPSDE(), sizes)
        return torch.stack([*found, *(path.between(t, s)(x).double() for t, s in pairwise(times))])

    expected = run()
    for few, at_once in ((1, 1), (2**20, 64), (700, 2**20)):
        for name in ("FIRST_ON_CPU", "BLOCK_ON_CPU"):
            monkeypatch.setattr(draws, name, few)
        monkeypatch.setattr(draws, "AT_ONCE_ON_CPU", at_once)
        torch.testing.assert_close(run(), expected, rtol=0, atol=1e-12)
    one = SeededNoise(SEEDS[2:3], None if sizes is None else sizes[2:3])
    torch.testing.assert_close(one(x[:1])[0].double(), expected[0, 2], rtol=0, atol=0)


def million():
    """Of 100 neighboring seeds, four draws."""
    noise, x = SeededNoise(range(100)), torch.empty(100, 2500)
    return torch.stack([noise(x) for _ in range(4)]).double()


def test_a_million_normal_numbers():
    """Their law, its moments, its far ends and its middle, and that no half of a word knows of the other."""
    found = million()
    numbers = found.flatten().numpy()
    assert scipy.stats.kstest(ndtr(found).flatten().numpy(), "uniform").pvalue > 1e-4
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        spread = math.sqrt(scipy.stats.norm.moment(2 * power) - moment**2)
        assert abs((numbers**power).mean() - moment) < 5 * spread / 1000
    for limit in (3, 3.5, 4, 4.5, 5):
        for tail in (numbers > limit, numbers < -limit):
            expected = 1e6 * scipy.stats.norm.sf(limit)
            assert scipy.stats.poisson.sf(tail.sum() - 1, expected) > 1e-5
            assert scipy.stats.poisson.cdf(tail.sum(), expected) > 1e-5
    near = numbers[abs(numbers) < 1e-3]
    assert scipy.stats.kstest(near, "uniform", (-1e-3, 2e-3)).pvalue > 1e-4
    # Float32 has no more than this many values there.
    assert len(np.unique(near)) > 0.99 * len(near)


def test_numbers_are_independent():
    """Over the two of a word, positions, draws and samples: of themselves, their sizes and their signs."""
    found = million()
    for score in (lambda z: z, lambda z: z**2 - 1, lambda z: z.sign()):
        z = score(found)
        z = (z - z.mean()) / z.std()
        neighbors = {
            "word": (z[..., ::2], z[..., 1::2]),
            "position": (z[..., :-1], z[..., 1:]),
            "counter": (z[..., :-8], z[..., 8:]),
            "draw": (z[:-1], z[1:]),
            "sample": (z[:, :-1], z[:, 1:]),
        }
        for name, (a, b) in neighbors.items():
            correlation = (a * b).mean().item()
            assert abs(correlation) < 5 / math.sqrt(a.numel()), name
        # Every pair of samples and draws.
        rows = z.flatten(0, 1)
        table = rows @ rows.T / rows.shape[1]
        table.fill_diagonal_(0)
        assert table.abs().max() < 6.5 / math.sqrt(rows.shape[1])


def test_ends_of_a_word():
    """The largest numbers, the least, and none that is not finite."""
    low = torch.tensor([0, 1, 2**31, 2**32 - 2, 2**32 - 1])
    angles = torch.tensor([0, 2**30, 2**31 - 1, -(2**31), -1])
    words = (low + (angles[:, None] << 32)).flatten()
    out = torch.empty(50)
    NORMAL.numbers(words, out)
    expected = philox.normals(words.numpy().view(np.uint64))
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
    assert out.abs().max().item() == pytest.approx(math.sqrt(-2 * math.log(2.0**-33)), rel=1e-6)
    radius = out.view(5, 5, 2).double().square().sum(-1).sqrt()[0]
    np.testing.assert_allclose(radius[-1], math.sqrt(-2 * math.log1p(-(2.0**-33))), rtol=1e-6)
    ones = torch.empty(128)
    SIGNS.numbers(torch.tensor([-1, 0]), ones)
    assert ones.tolist() == [1.0] * 64 + [-1.0] * 64


@pytest.mark.parametrize("count", [3, 200])
def test_a_path_is_the_one_of_halved_intervals(count):
    """Increments within an octave, over one and over several, of rows of few and of many numbers."""
    paths, rng = BrownianPaths(Philox(SEEDS)), np.random.default_rng(3)

    def cell(tau):
        octave = 2.0 ** (math.frexp(tau)[1] - 1)
        return octave * (1 + round((tau / octave - 1) * 2**20) / 2**20)

    ends = [cell(tau) for tau in (30 * rng.random(), 6.1, 4.0, 2.5, 2.0**-3 * (1 + rng.random()), 3e-7)]
    for end, start in pairwise(sorted(ends, reverse=True)):
        found = paths.increment((5, count), CPU, start, end)
        for row, seed in zip(found, SEEDS, strict=True):
            first, last = (math.frexp(tau)[1] - 1 for tau in (start, end))
            between = sum(2 ** (k / 2) * philox.interval(seed, k, 0, count) for k in range(first, last))
            expected = between + philox.brownian(seed, end, count) - philox.brownian(seed, start, count)
            # Its numbers are rounded to float32.
            np.testing.assert_allclose(row, expected, rtol=0, atol=3e-6 * math.sqrt(end))


PLACES = {"few": ((4, 3), None), "many": ((3, 3, 33, 31), None), "unequal": ((3, 3, 60, 60), [60, 9, 33])}


@simulated
@pytest.mark.parametrize("name", PLACES)
def test_a_device_draws_the_same(name):
    """To 1e-5, from what is sent there once, without a wait; and to and fro between devices."""
    (shape, sizes), times = PLACES[name], GRIDS["log_snr"](VPSDE(), 8)
    seeds, x = range(3, 3 + shape[0]), torch.empty(shape)
    there = x.to(sim.NAME)

    def run(*places):
        noise, path = SeededNoise(seeds, sizes), BrownianNoise(seeds, VPSDE(), sizes)
        steps = [path.between(t, s) for t, s in pairwise(times)]
        turns = [place for _ in range(4) for place in places]
        return [[noise(y) for y in turns], [noise.uniform(y) for y in turns],
                [step(y) for step, y in zip(steps, turns, strict=False)]]  # fmt: skip

    here = run(x, x)
    with sim.watching() as seen:
        found = run(there, there)
        both = run(x, there)
    assert not seen.waits, seen.waits
    for expected, *others in zip(here, found, both, strict=True):
        for other in others:
            for a, b in zip(expected, other, strict=True):
                assert b.dtype == a.dtype
                torch.testing.assert_close(b.cpu(), a, rtol=0, atol=1e-5)
    if name == "many":
        # The launches of the formula are those of a block, and its numbers come from nowhere else.
        noise = SeededNoise(seeds)
        with sim.watching() as seen:
            first = [noise(there) for _ in range(16)]
        assert len({row.device.type for row in first}) == 1
        assert seen.sent == 1
        assert seen.launches.total() < 500


@simulated
@pytest.mark.parametrize("noise", ["independent", "brownian"])
def test_nothing_is_sent_at_a_step(noise):
    """Of a run of few numbers and one of many: as much as of a run twice as long."""
    for dim in (3, 5000):
        model = Denoiser(MLP((dim,), None, width=4, layers=1), VPSDE(), event_shape=(dim,)).eval().to(sim.NAME)
        sent = []
        for steps in (5, 10):
            with sim.watching() as seen:
                generate(model, SAMPLERS["ancestral"](), 2, (dim,), steps=steps, noise=noise)
            sent.append(seen.sent)
        assert sent[0] == sent[1] <= 6, sent


@simulated
def test_a_device_without_float64(monkeypatch):
    """It gets what the host draws."""
    x, there = torch.empty(3, 5000), torch.empty(3, 5000).to(sim.NAME)
    expected = SeededNoise(SEEDS[:3])
    for module in ("host", "noise.draws", "noise.path"):
        monkeypatch.setattr(f"samplers.{module}.has_float64", lambda device: device.type == "cpu")
    noise = SeededNoise(SEEDS[:3])
    for _ in range(2):
        torch.testing.assert_close(noise(there).cpu(), expected(x), rtol=0, atol=0)
    u = noise.uniform(there).cpu()
    assert u.dtype == torch.float32
    assert u.max() < 1
    torch.testing.assert_close(u.double(), expected.uniform(x), rtol=0, atol=1e-7)
    step = torch.tensor(0.5), torch.tensor(0.3)
    found, rows = (BrownianNoise(SEEDS[:3], VPSDE()).between(*step)(y).cpu() for y in (there, x))
    torch.testing.assert_close(found, rows, rtol=0, atol=1e-6)
