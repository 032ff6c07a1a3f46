"""Parts of a restoration: its scores, the law of the data that it must keep, where it begins, what it may cost."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from samplers import SAMPLERS, generate
from score_sde.restoration.beginning import Beginning
from score_sde.restoration.cost import ITERATIONS, PAID, paid_iterations, passes
from score_sde.restoration.law import MAX_REACH, Law
from score_sde.restoration.methods import posterior
from score_sde.restoration.scores import covered, crps, decibels, expected_coverage, hidden_entries, score
from sde import VPSDE, Denoiser, Transform
from sde.data import Dataset
from sde.inverse.operators import Mask, SuperResolution
from sde.model.law import law_by_level, noise_end
from tests.oracles.gaussian_fields import field_problem, image_covariance
from tests.oracles.noise_network import NoiseOfGaussian

CPU, STD = torch.device("cpu"), 0.31


def test_crps_by_all_pairs(generator):
    samples = torch.randn((5, 3, 4), generator=generator, dtype=torch.float64)
    y = torch.randn((3, 4), generator=generator, dtype=torch.float64)
    pairs = sum((samples[i] - samples[j]).abs() for i in range(5) for j in range(5)) / 20
    torch.testing.assert_close(crps(samples, y), (samples - y).abs().mean(0) - pairs / 2)


def test_crps_and_coverage_of_exact_samples(generator):
    """Unbiased for any k: std / sqrt(pi) in expectation; and what few samples cover is what is said of them."""
    for k in (2, 5, 12):
        x, y = (torch.randn((n, 40_000), generator=generator, dtype=torch.float64) for n in (k, 1))
        assert crps(x, y[0]).mean().item() == pytest.approx(math.pi**-0.5, abs=0.02)
        assert covered(x, y[0]).double().mean().item() == pytest.approx(expected_coverage(k), abs=0.035)
    same = torch.full((4, 3), 0.1)
    assert covered(same, same[0].double()).all(), "samples that are all the truth"


def test_scores_are_over_what_was_hidden():
    truth = torch.arange(12.0).view(2, 1, 2, 3)
    mask = Mask(torch.tensor([[True, False, False], [True, True, True]]), (1, 2, 3))
    hidden = hidden_entries(mask, truth)
    assert hidden.flatten(1).sum(1).tolist() == [2, 2]
    samples = truth[:, None].repeat(1, 4, 1, 1, 1)
    samples[:, :, :, 1] += 100
    whole, each = score(samples, truth, hidden, 11.0)
    assert (whole.psnr, whole.crps, whole.coverage) == (math.inf, 0, 1), "what was observed does not count"
    # Half of the samples 1 above in the hidden entries of the second item, half 3 above.
    samples[1, :2, :, 0, 1:] += 1
    samples[1, 2:, :, 0, 1:] += 3
    whole, each = score(samples, truth, hidden, 11.0)
    assert each[0].psnr == math.inf
    assert each[1].psnr == pytest.approx(10 * math.log10(121 / 5))
    assert each[1].psnr_mean == pytest.approx(10 * math.log10(121 / 4))
    # Mean distance to the truth 2, and 8 of 12 ordered pairs are 2 apart: 2 - 4/3 / 2.
    assert each[1].crps == pytest.approx(2 - 2 / 3)
    assert each[1].coverage == 0
    assert whole.psnr == pytest.approx(10 * math.log10(121 / 2.5))
    assert whole.crps == pytest.approx(each[1].crps / 2)
    assert whole.coverage == 0.5
    assert hidden_entries(SuperResolution(1), truth).all()
    alone, _ = score(samples[:, :1], truth, hidden, 11.0)
    assert (alone.crps, alone.coverage) == (None, None)
    assert decibels(0.0, 1.0) == -math.inf, "data that are all the same have no range"


def dataset(x):
    return Dataset(x, None, None, Transform())


def gaussian_data(shape=(1, 4, 4), count=400):
    return dataset(STD * torch.randn((count, *shape), generator=torch.Generator().manual_seed(1)))


def test_divergence_is_noticed(generator):
    """Correlated data, on which dps diverges and moment matching does not."""
    covariance = 0.1 * image_covariance(6)
    upper = Mask(torch.arange(6)[:, None].expand(6, 6) < 3, (1, 6, 6))
    task = field_problem(covariance, (1, 6, 6), upper, 0.0)
    x = torch.randn((500, 36), generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    data = dataset(x.float().view(-1, 1, 6, 6))
    said = {}
    for method in ("mmps", "dps"):
        law = Law(data, task.prior(VPSDE()))
        model = posterior(method, task.prior(VPSDE()), upper, task.y.float(), 0.0)
        found = generate(model, SAMPLERS["sa_solver"](), 3, (1, 6, 6), steps=30, callback=law)
        said[method] = law.broken(law.furthest(found.x))
    assert said["mmps"] is None
    assert "the samples leave the law of the data" in said["dps"]


def test_the_law_of_noised_data():
    data = gaussian_data()
    law = Law(data, Denoiser(nn.Identity(), VPSDE()))
    assert 3 < law.data_reach < 6
    assert law.reach == MAX_REACH
    t = torch.tensor(0.5, dtype=torch.float64)
    alpha, sigma = VPSDE().alpha(t).item(), VPSDE().sigma(t).item()
    std = data.moments[1].mean().add(data.moments[0].var(correction=0)).sqrt().item()
    x = torch.zeros(3, 1, 4, 4)
    x[1, 0, 2, 1] = -(alpha * 20 * std + MAX_REACH * sigma)
    law(0, t, x)
    assert law.furthest(torch.zeros(1, 1, 4, 4)) == pytest.approx(20, abs=0.2)
    assert law.broken(MAX_REACH) is None
    law(1, t, x * torch.inf)
    assert law.furthest(x[:1]) == math.inf, "also where 0 times infinity is NaN"
    # A channel that is constant, and data that are: nothing is divided by zero.
    two = dataset(torch.cat([torch.ones(50, 1, 3), torch.randn(50, 1, 3)], 1))
    assert Law(two, Denoiser(nn.Identity(), VPSDE())).furthest(torch.ones(1, 2, 3)) < 4
    flat = Law(dataset(torch.ones(5, 3)), Denoiser(nn.Identity(), VPSDE()))
    flat(0, t, torch.zeros(2, 3))
    assert flat.broken(flat.furthest(torch.ones(2, 3))) is None


def test_a_noise_network_begins_where_its_means_keep_the_law():
    sde, data = VPSDE(), gaussian_data()
    model = Denoiser(NoiseOfGaussian(sde, 0.0177, STD), sde, "noise", STD)
    begin = Beginning(model, data, CPU, fixed=False, guided="pigdm")
    first, kept = noise_end(model, data.batch(torch.arange(0, 400, 7))[0])
    assert begin.start_time == pytest.approx(kept.t, abs=0.05)
    assert first.t > kept.t
    assert "posterior means have left the law of the data" in begin.note
    options = begin.options(3)
    torch.testing.assert_close(options["start"][2], data.statistics.mean.float())
    # pigdm of half of each item, with the same measurement: spread too far from the noise end, and right from there.
    mask = Mask(torch.arange(4) < 2, (1, 4, 4))
    y = mask(data.batch(torch.arange(200))[0])
    guided = posterior("pigdm", model, mask, y, 0.0)
    late = generate(guided, SAMPLERS["sa_solver"](), 200, (1, 4, 4), steps=30, **begin.options(200)).x
    whole = generate(guided, SAMPLERS["sa_solver"](), 200, (1, 4, 4), steps=30).x
    spread = [x[:, ~mask.mask].std().item() for x in (late, whole)]
    assert spread[0] == pytest.approx(STD, rel=0.1)
    # Better than from there by no less than what 1,600 numbers leave open.
    assert abs(spread[0] - STD) < abs(spread[1] - STD) + STD / math.sqrt(2 * 1600)
    fixed = Beginning(model, data, CPU, fixed=True, guided="pigdm")
    assert (fixed.start_time, fixed.options(3)) == (None, {})
    assert "the times of --grid begin there" in fixed.note
    exact = Denoiser(NoiseOfGaussian(sde, 0, STD), sde, "noise", STD)
    for one, method in ((model, "replacement"), (exact, "dps")):
        begin = Beginning(one, data, CPU, fixed=False, guided=method)
        assert (begin.start_time, begin.note) == (None, None)


def test_iterations_are_those_that_can_be_paid():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 100), nn.Linear(100, 12), nn.Unflatten(1, (3, 4)))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, x, c_noise, cond=None):
            return self.inner(x)

    model = Denoiser(Network(), VPSDE())
    each = 2 * 2 * 12 * 100
    for iterations, fewer in pairwise(ITERATIONS):
        most = int(PAID["cpu"] / (each * passes(iterations)))
        assert paid_iterations(model, (3, 4), CPU, most, 1) == iterations
        assert paid_iterations(model, (3, 4), CPU, 1, most + 1) == fewer
    assert paid_iterations(model, (3, 4), CPU, 10**12, 10**6) == ITERATIONS[-1]


def padded_data(fill=0.0, count=400):
    """Noise (count, 1, 8) around 3, of which 4, 6 or 7 entries are real, and the last one of none."""
    generator = torch.Generator().manual_seed(1)
    x = 3 + STD * torch.randn((count, 1, 8), generator=generator)
    sizes = torch.tensor([4, 6, 7])[torch.randint(3, (count,), generator=generator)]
    real = torch.arange(8) < sizes[:, None, None]
    return Dataset(torch.where(real, x, fill), None, None, Transform(), sizes=sizes)


def test_of_padded_items_what_is_real_and_hidden_counts():
    sizes = torch.tensor([2, 4])
    truth, samples = torch.zeros(2, 1, 4), torch.zeros(2, 3, 1, 4)
    mask = Mask((torch.arange(4) < torch.tensor([1, 2])[:, None])[:, None], (1, 4))
    hidden = hidden_entries(mask, truth, sizes)
    assert hidden[:, 0].tolist() == [[False, True, False, False], [False, False, True, True]]
    assert hidden_entries(SuperResolution(1, 1), truth, sizes)[0, 0].tolist() == [True, True, False, False]
    samples[:, :, :, 3:] = 100.0
    samples[0, :, :, 1] = 3.0
    # Errors of 3 in the one hidden entry of the first item, of 0 and 100 in those of the second: not of its padding.
    whole, each = score(samples, truth, hidden, 10.0)
    assert [one.crps for one in each] == [3, 50]
    assert [one.coverage for one in each] == [0, 0.5]
    assert whole.crps == pytest.approx(103 / 3)
    assert each[0].psnr == pytest.approx(10 * math.log10(100 / 9))


def test_the_law_of_padded_items():
    """It is that of what is real: padding is 9.7 standard deviations from the mean."""
    data, model = padded_data(), Denoiser(nn.Identity(), VPSDE())
    real = torch.arange(8) < data.sizes[:, None, None]
    x, std = data.items, data.items[real].std(correction=0)
    law = Law(data, model, padded=True)
    assert torch.allclose(law.std, std.double(), rtol=1e-3)
    mean = torch.where(real, x, 0).sum(0) / real.sum(0).clamp(min=1)
    expected = ((x - mean).abs() / std)[real].max().item()
    assert law.data_reach == pytest.approx(expected, rel=0.01)
    t = torch.tensor(0.01, dtype=torch.float64)
    law(0, t, VPSDE().alpha(t).item() * x)
    assert law.furthest(x, data.sizes) == pytest.approx(expected, rel=0.01)
    assert Law(data, model).furthest(x) > 9
    far = x.clone()
    far[7, 0, 0] = 3 + 30 * std
    assert law.furthest(far, data.sizes) == pytest.approx(30, rel=0.1)


def test_levels_of_padded_items():
    """The law of D is measured where items are real, whatever they are padded with."""
    sde, found = VPSDE(), []
    for fill in (0.0, 50.0):
        data = padded_data(fill)
        x0 = data.items - 3
        model = Denoiser(NoiseOfGaussian(sde, 0.0177, STD), sde, "noise", STD)
        found.append([*law_by_level(model, x0, sizes=data.sizes)])
        real = torch.arange(8) < data.sizes[:, None, None]
        assert found[-1][0].data_std == pytest.approx(x0[real].std().item(), rel=0.02)
        # Off by the same in every entry that is real.
        assert found[-1][0].std == pytest.approx(0.0177 * found[-1][0].noise_level, rel=0.02)
    assert found[0] == found[1]
