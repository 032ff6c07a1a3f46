"""Samplers on a chain against those of DDPM's libraries, in their own notation, with a network that knows labels."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from samplers import DDIM, SAMPLERS, DPMSolverPP, ExponentialAdams, UniPC, generate, sample
from samplers.grid import source_times
from sde import ChainSDE, Denoiser, NoiseInput
from sde.guidance import StaticThreshold
from tests.oracles.exact import GaussianMixture

CHAIN = ChainSDE()
ABAR = CHAIN.alpha(CHAIN.times) ** 2
SIGMAS = ((1 - ABAR) / ABAR).sqrt()
LINSPACE = [999.0, 888.0, 777.0, 666.0, 555.0, 444.0, 333.0, 222.0, 111.0, 0.0]


class Epsilon(nn.Module):
    """epsilon(x, label) of a mixture, as a network that is told whole labels."""

    num_classes = None

    def __init__(self, dtype):
        super().__init__()
        means = torch.tensor([[0.9, -0.3, 0.2], [-0.8, 0.5, 0.4], [0.1, 0.2, -1.1]], dtype=torch.float64)
        self.mixture = GaussianMixture(CHAIN, means, 0.3)
        self.register_buffer("like", torch.zeros(1, dtype=dtype))

    def forward(self, x, label, cond=None):
        assert torch.equal(label, label.round())
        return self.mixture.noise(x.double(), label.double() / 999).to(x.dtype)


@pytest.fixture
def noise(generator):
    return torch.randn(16, 3, generator=generator, dtype=torch.float64)


def denoiser(dtype=torch.float64):
    told = NoiseInput("time", 999.0, rounding="nearest")
    return Denoiser(Epsilon(dtype), CHAIN, "noise", noise_input=told, scaled_input=False, event_shape=(3,))


def epsilon(x, label):
    return Epsilon(torch.float64)(x, torch.full((len(x),), float(label), dtype=torch.float64))


def run(sampler, labels, x, model=None, **options):
    times = torch.tensor(labels, dtype=torch.float64) / 999
    return sample(model or denoiser(x.dtype), sampler, x, times, **options)


def ddim(x, labels, clip=None):
    """Song, Meng and Ermon 2021, eq. 12, from alphas_cumprod; with x_0 clipped and epsilon of it, as Dhariwal and
    Nichol have it. After the last label alphas_cumprod is 1."""
    for now, after in zip(labels, [*labels[1:], None], strict=True):
        abar, abar_after = ABAR[int(now)], 1.0 if after is None else ABAR[int(after)].item()
        x0 = (x - (1 - abar).sqrt() * epsilon(x, now)) / abar.sqrt()
        x0 = x0 if clip is None else x0.clamp(-clip, clip)
        noise = (x - abar.sqrt() * x0) / (1 - abar).sqrt()
        x = math.sqrt(abar_after) * x0 + math.sqrt(1 - abar_after) * noise
    return x


def k_space(x, labels, heun):
    """Euler and Heun of Karras et al. 2022, algorithm 1, on x / sqrt(alphas_cumprod), down to sigma = 0."""
    sigmas = [*(SIGMAS[int(label)] for label in labels), torch.tensor(0.0, dtype=torch.float64)]
    y = x / ABAR[int(labels[0])].sqrt()
    for i, label in enumerate(labels):
        slope, h = epsilon(y / (sigmas[i] ** 2 + 1).sqrt(), label), sigmas[i + 1] - sigmas[i]
        there = y + h * slope
        if heun and sigmas[i + 1] > 0:
            slope = (slope + epsilon(there / (sigmas[i + 1] ** 2 + 1).sqrt(), labels[i + 1])) / 2
        y = y + h * slope
    return y


def dpmpp_2m(x, labels):
    """Lu et al. 2022b, algorithm 2, down to sigma = 0, where the last step is x_0."""
    before = None
    for i, label in enumerate(labels):
        abar = ABAR[int(label)]
        x0 = (x - (1 - abar).sqrt() * epsilon(x, label)) / abar.sqrt()
        if i == len(labels) - 1:
            break
        there = ABAR[int(labels[i + 1])]
        lambdas = [-SIGMAS[int(labels[j])].log() for j in (max(i - 1, 0), i, i + 1)]
        h, direction = lambdas[2] - lambdas[1], x0
        if before is not None:
            r = (lambdas[1] - lambdas[0]) / h
            direction = (1 + 1 / (2 * r)) * x0 - before / (2 * r)
        x = ((1 - there) / (1 - abar)).sqrt() * x - there.sqrt() * torch.expm1(-h) * direction
        before = x0
    return x0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_samplers_of_the_libraries(noise, dtype):
    """Through ``sample``, and through ``generate`` from a state, whose last call is their last step."""
    labels = list(range(900, -1, -100))
    for sampler, grid, expected in (
        (DDIM(), labels, ddim(noise, labels)),
        (DDIM(), LINSPACE, k_space(noise, LINSPACE, heun=False)),
        (SAMPLERS["heun"](), LINSPACE, k_space(noise, LINSPACE, heun=True)),
        (DPMSolverPP(2), LINSPACE, dpmpp_2m(noise, LINSPACE)),
    ):
        tolerance = 1e-9 if dtype == torch.float64 else 1e-4 * expected.abs().max().item()
        found = run(sampler, grid, noise.to(dtype))
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
        times = torch.tensor(grid, dtype=torch.float64) / 999
        again = generate(denoiser(dtype), sampler, 16, (3,), grid=times, start_state=noise).x
        torch.testing.assert_close(again.double(), expected, rtol=0, atol=tolerance)


def test_clipped_predictions(noise):
    """DDIM with clip_denoised: the noise is that of the clipped x_0."""
    labels = list(range(900, -1, -100))
    expected = ddim(noise, labels, clip=0.5)
    found = run(DDIM(), labels, noise, StaticThreshold(denoiser(), -0.5, 0.5))
    torch.testing.assert_close(found, expected)
    assert (found - ddim(noise, labels)).abs().max() > 0.1


def unipc(x, labels, order, variant, of_noise=False):
    """Zhao et al. 2023, algorithms 1, 2 and 5 to 8, as diffusers has them: rho solves R rho = b, but is 1/2 for the
    predictor of order 2 and the corrector of order 1; hh is h of a noise prediction, and -h of one of data."""

    def slopes(lam, m_0, h, before):
        ratios = [(then - lam) / h for then, _ in before]
        return ratios, [(m - m_0) / ratio for (_, m), ratio in zip(before, ratios, strict=True)]

    def moved(y, here, there, hh, b_of_h, m_0, change):
        (alpha, sigma), (alpha_s, sigma_s) = here, there
        if of_noise:
            return alpha_s / alpha * y - sigma_s * (torch.expm1(hh) * m_0 + b_of_h * change)
        return sigma_s / sigma * y - alpha_s * (torch.expm1(hh) * m_0 + b_of_h * change)

    def rho(ratios, hh, b_of_h):
        phi, factorial, right = torch.expm1(hh) / hh - 1, 1, []
        for k in range(1, len(ratios) + 1):
            right.append(phi * factorial / b_of_h)
            factorial *= k + 1
            phi = phi / hh - 1 / factorial
        rows = torch.stack([torch.stack(ratios) ** k for k in range(len(ratios))])
        return torch.linalg.solve(rows, torch.stack(right))

    history, before, used = [], None, 0
    for i, label in enumerate(labels):
        here = ABAR[int(label)].sqrt(), (1 - ABAR[int(label)]).sqrt()
        lam = (here[0] / here[1]).log()
        found = epsilon(x, label)
        denoised = (x - here[1] * found) / here[0]
        if i == len(labels) - 1:
            return denoised
        value = found if of_noise else denoised
        if before is not None:
            y, last = before
            then, m_0 = history[-1]
            h = lam - then
            hh = h if of_noise else -h
            b_of_h = hh if variant == "bh1" else torch.expm1(hh)
            ratios, differences = slopes(then, m_0, h, history[-used:-1][::-1])
            weights = rho([*ratios, torch.ones_like(h)], hh, b_of_h) if used > 1 else [0.5]
            change = sum(w * d for w, d in zip(weights, [*differences, value - m_0], strict=True))
            x = moved(y, last, here, hh, b_of_h, m_0, change)
        history.append((lam, value))
        there = ABAR[int(labels[i + 1])].sqrt(), (1 - ABAR[int(labels[i + 1])]).sqrt()
        h = (there[0] / there[1]).log() - lam
        hh = h if of_noise else -h
        b_of_h = hh if variant == "bh1" else torch.expm1(hh)
        used = min(order, len(history))
        ratios, differences = slopes(lam, value, h, history[-used:-1][::-1])
        weights = [0.5] if used == 2 else rho(ratios, hh, b_of_h) if used > 2 else []
        change = sum(w * d for w, d in zip(weights, differences, strict=True))
        before = x, here
        x = moved(x, here, there, hh, b_of_h, value, change)
    raise AssertionError("no labels")


@pytest.mark.parametrize("prediction", ["denoised", "noise"])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_in_its_own_notation(order, variant, prediction, noise):
    labels = [float(label) for label in range(999, 98, -100)]
    theirs = unipc(noise, labels, order, variant, of_noise=prediction == "noise")
    torch.testing.assert_close(run(UniPC(order, prediction, variant), labels, noise), theirs)


def test_unipc_differs_by_its_simplified_weights(noise):
    """Ours integrates exactly; the difference vanishes with the square of the step."""
    gaps = []
    for steps in (37, 111, 333):
        labels = torch.linspace(999, 0, steps + 1, dtype=torch.float64).tolist()
        theirs = unipc(noise, labels, 2, "bh2")
        gaps.append((run(UniPC(2), labels, noise) - theirs).square().mean().sqrt().item())
    assert gaps[0] > 4 * gaps[1] > 24 * gaps[2], gaps


def test_deis_ends_at_the_first_step(noise):
    """diffusers' DEIS of order 2 is ours on "noise"; its last step, of order 1 below 15 steps, comes to the level of
    label 0, where nothing is denoised."""
    labels = [float(label) for label in range(999, 98, -100)]
    x, before = noise, None
    for now, after in zip(labels, [*labels[1:], 0.0], strict=True):
        abar, there = ABAR[int(now)], ABAR[int(after)]
        e, rho, rho_there = epsilon(x, now), SIGMAS[int(now)], SIGMAS[int(after)]
        change = (rho_there - rho) * e
        if before is not None and after:
            # The integral of the line through e and before in log rho.
            e_before, rho_before = before

            def primitive(r, base, other):
                return r * ((r / base).log() - 1) / (other / base).log()

            own = primitive(rho_there, rho_before, rho) - primitive(rho, rho_before, rho)
            other = primitive(rho_there, rho, rho_before) - primitive(rho, rho, rho_before)
            change = own * e + other * e_before
        before = (e, rho)
        x = there.sqrt() * (x / abar.sqrt() + change)
    found = run(ExponentialAdams(2, "noise"), labels, noise, denoise=False)
    torch.testing.assert_close(run(DDIM(), [labels[-1], 0.0], found, denoise=False), x)


def test_times_of_the_source():
    """All of them, or evenly by their numbers, as numpy.linspace has them: diffusers' spacing "linspace"."""
    levels = CHAIN.times.flip(0).tolist()
    assert source_times("source", levels).tolist() == levels
    assert (999 * source_times("source:10", levels)).round().tolist() == LINSPACE
    for count in (2, 7, 1000):
        wanted = np.linspace(0, 999, count).round()[::-1]
        assert (999 * source_times(f"source:{count}", levels)).round().tolist() == wanted.tolist()
    for grid in ("source:1", "source:1001", "source:", "source:2.5", "karras:7", "source:²"):
        with pytest.raises(ValueError, match=f"grid = '{grid}': needs source, or source:N with N from 2 to 1000"):
            source_times(grid, levels)
