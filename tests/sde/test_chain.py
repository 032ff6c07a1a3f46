"""Chains: the tables of the papers, written out once more; what lies between the steps; and what networks are told."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sde import SDE, VESDE, VPSDE, ChainSDE, Denoiser, NoiseInput
from sde.checkpoint.spec import build_sde, describe_sde

KINKED = (0.1, 0.9, 0.01, 0.5, 0.2, 0.0001, 0.3)
CHAINS = {
    "linear": ChainSDE(),
    "scaled_linear": ChainSDE("scaled_linear", beta_start=0.00085, beta_end=0.012),
    "cosine": ChainSDE("cosine"),
    "sigmoid": ChainSDE("sigmoid"),
    "sigmoid_beta": ChainSDE("sigmoid_beta", steps=50),
    "table": ChainSDE.of_betas(KINKED),
    "short": ChainSDE("linear", 3, 0.1, 0.6),
    "zero": ChainSDE("scaled_linear", beta_start=0.00085, beta_end=0.012, zero_terminal_snr=True),
    "zero-table": ChainSDE.of_betas((*KINKED, 1.0)),
    "zero-short": ChainSDE("linear", 4, 0.1, 0.6, zero_terminal_snr=True),
}


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def written_out(name):
    """alpha^2 of the steps, one after the other."""
    if name in ("cosine", "sigmoid"):

        def bar(u):
            if name == "cosine":
                return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
            return (-sigmoid(u * 6 - 3) + sigmoid(3)) / (sigmoid(3) - sigmoid(-3))

        betas = [min(1 - bar((j + 1) / 1000) / bar(j / 1000), 0.999) for j in range(1000)]
    else:
        betas = {
            "linear": [1e-4 + (0.02 - 1e-4) * j / 999 for j in range(1000)],
            "scaled_linear": [(0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * j / 999) ** 2 for j in range(1000)],
            "sigmoid_beta": [1e-4 + (0.02 - 1e-4) * sigmoid(-6 + 12 * j / 49) for j in range(50)],
            "table": KINKED,
            "short": [0.1, 0.35, 0.6],
        }[name]
    product, products = 1.0, []
    for beta in betas:
        product *= 1 - beta
        products.append(product)
    return torch.tensor(products, dtype=torch.float64)


@pytest.mark.parametrize("name", [name for name in CHAINS if "zero" not in name])
def test_the_steps_are_the_table(name):
    chain, alphas_cumprod = CHAINS[name], written_out(name)
    assert chain.times[[0, 1, -1]].tolist() == [0, 1 / (len(alphas_cumprod) - 1), 1]
    torch.testing.assert_close(chain.alpha(chain.times), alphas_cumprod.sqrt(), rtol=1e-11, atol=0)
    torch.testing.assert_close(chain.sigma(chain.times), (1 - alphas_cumprod).sqrt(), rtol=1e-11, atol=0)
    torch.testing.assert_close(chain.noise_levels, (1 / alphas_cumprod - 1).sqrt(), rtol=1e-11, atol=0)
    same = ChainSDE.of_alphas_cumprod(alphas_cumprod)
    torch.testing.assert_close(same.sigma(chain.times), chain.sigma(chain.times), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", CHAINS)
def test_between_the_steps(name):
    """The log-SNR falls, its inverse is one, and f and g2 are finite, positive, and those of the two formulas."""
    chain = CHAINS[name]
    t = torch.linspace(0, chain.t_finite, 20011, dtype=torch.float64)
    log_snr = chain.log_snr(t)
    assert (log_snr.diff() < 0).all()
    # Where alpha is 1e-7, it has as many digits less.
    torch.testing.assert_close(chain.t_of_log_snr(log_snr), t, rtol=1e-9, atol=1e-10)
    g2 = chain.g2(t)
    assert ((g2 > 0) & g2.isfinite()).all()
    torch.testing.assert_close(g2, SDE.g2(chain, t), rtol=1e-7, atol=0)
    torch.testing.assert_close(chain.f(t), SDE.f(chain, t), rtol=1e-7, atol=0)


def test_a_smooth_chain_has_a_smooth_path():
    """No kinks at the steps: the slope of the log-SNR changes over a step by as little as the betas do."""
    t = torch.linspace(0.03, 1, 20000, dtype=torch.float64)
    ratio = CHAINS["linear"].g2(t) / VPSDE(beta_min=0.1, beta_max=20).g2(t)
    # The sum of the first betas is no integral, and log(1 - beta) is not beta.
    assert ratio.sub(1).abs().max() < 0.02
    assert ratio.diff().abs().max() < 1e-4


@pytest.mark.parametrize("name", [name for name in CHAINS if "zero" in name])
def test_open_ends(name):
    chain = CHAINS[name]
    end = torch.tensor(1.0, dtype=torch.float64)
    assert chain.open_end
    assert (chain.alpha(end), chain.sigma(end)) == (0, 1)
    assert chain.log_snr(end).item() == pytest.approx(-48 * math.log(2))
    assert chain.t_of_noise_level(chain.noise_level(end)) == 1
    # The ratio of alpha and sigma goes to zero linearly, and the path has no kink where that begins.
    near = 1 - torch.tensor([1e-4, 1e-5], dtype=torch.float64) / chain.steps
    ratio = chain.alpha(near) / chain.sigma(near)
    assert (ratio[0] / ratio[1]).item() == pytest.approx(10, rel=1e-3)
    joint = chain.times[-2] + torch.tensor([-1e-9, 1e-9], dtype=torch.float64)
    torch.testing.assert_close(*chain.g2(joint), rtol=1e-5, atol=0)
    assert not replace(chain, t_max=0.99).open_end


def test_zero_terminal_snr():
    """Algorithm 1 of Lin et al. 2024, on the square roots of alphas_cumprod."""
    plain, zero = CHAINS["scaled_linear"], CHAINS["zero"]
    root = plain.alpha(plain.times)
    expected = (root - root[-1]) * root[0] / (root[0] - root[-1])
    torch.testing.assert_close(zero.alpha(zero.times), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(zero.sigma(zero.times), (1 - expected**2).sqrt(), rtol=1e-9, atol=0)


class Spy(nn.Module):
    def forward(self, x, c_noise, cond=None):
        self.told = c_noise
        return torch.zeros_like(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["cosine", "linear", "table"])
def test_labels_of_steps(name, dtype):
    """Of a batch, of one time and of a run: the number of the step, and between two steps that below."""
    chain, spy = CHAINS[name], Spy()
    steps = chain.steps
    labels = list(range(steps))
    for of, options in (("time", {"scale": steps - 1.0}), ("time", {"scale": steps - 1.0, "rounding": "down"}),
                        ("step", {"scale": 1.0})):  # fmt: skip
        model = Denoiser(spy, chain, "noise", noise_input=NoiseInput(of, **options), scaled_input=False)
        model(torch.zeros(steps, 1, dtype=dtype), chain.times.to(dtype))
        assert (spy.told - torch.tensor(labels)).abs().max() <= (0 if of == "step" or "rounding" in options else 1e-4)
        told = [model.network_time(chain.level(t)) for t in chain.times.flip(0)[::7]]
        assert told == pytest.approx(labels[::-1][::7], abs=0 if "rounding" in options or of == "step" else 1e-12)
    cut = NoiseInput("time", steps - 1.0, rounding="down")
    between = (chain.times[:-1] + chain.times[1:] * 3) / 4
    assert Denoiser(spy, chain, noise_input=cut).network_time(chain.level(between)).tolist() == labels[:-1]


def test_edm_iddpm():
    """iDDPMPrecond: u_0 > ... > u_M = 0 by its recursion, c_noise = M - 1 - the number of the nearest u."""
    big, c_1, c_2 = 1000, 0.001, 0.008

    def bar(j):
        return math.sin(0.5 * math.pi * j / big / (c_2 + 1)) ** 2

    u = [0.0] * (big + 1)
    for j in range(big, 0, -1):
        u[j - 1] = math.sqrt((u[j] ** 2 + 1) / max(bar(j - 1) / bar(j), c_1) - 1)
    chain = ChainSDE("cosine", offset=c_2, max_beta=1 - c_1)
    torch.testing.assert_close(chain.noise_levels.flip(0), torch.tensor(u[:-1], dtype=torch.float64), rtol=1e-9, atol=0)
    # Asked on the chain itself, and where x = x_0 + sigma n, which has smaller levels, too.
    told = NoiseInput("step", scale=1.0)
    sigma = torch.logspace(-3, 4, 300, dtype=torch.float64)
    nearest = [big - 1 - int(np.argmin(np.abs(np.array(u) - s))) for s in sigma.tolist()]
    assert min(nearest) == -1
    model = Denoiser(Spy(), chain, "noise", 1.0, noise_input=told)
    model.sde = VESDE(1e-4, 2e4)
    at = model.sde.t_of_noise_level(sigma)
    assert model.network_time(model.sde.level(at)).tolist() == nearest
    assert [model.network_time(model.sde.level(t)) for t in at] == nearest


@pytest.mark.parametrize("name", CHAINS)
def test_chains_are_stored(name):
    described = describe_sde(CHAINS[name])
    assert build_sde(json.loads(json.dumps(described))) == CHAINS[name]
    assert bool(described["betas"]) == ("table" in name)


@pytest.mark.parametrize(("build", "words"), [
    (lambda: ChainSDE("quadratic"), "needs one of linear, scaled_linear, sigmoid_beta, cosine, sigmoid, table"),
    (lambda: ChainSDE("cosine", beta_end=0.1), "the schedule cosine takes no beta_end"),
    (lambda: ChainSDE(steps=2), "steps = 2: a chain needs at least 3"),
    (lambda: ChainSDE(steps=10.5), "steps = 10.5"),
    (lambda: ChainSDE("table"), "'table' with 0 betas: betas of your own are the schedule 'table'"),
    (lambda: ChainSDE(betas=KINKED), "'linear' with 7 betas"),
    (lambda: ChainSDE.of_betas([0.1, 0.0, 0.3]), "beta 1 of this chain is 0: betas lie above 0"),
    (lambda: ChainSDE.of_betas([0.1, 1.0, 0.3]), "beta 1 of this chain is 1"),
    (lambda: ChainSDE(beta_end=math.nan), "beta 0 of this chain is nan"),
    (lambda: ChainSDE.of_alphas_cumprod([0.9, 0.95, 0.3]), "beta 1 of this chain is -0.0"),
])  # fmt: skip
def test_refusals(build, words):
    with pytest.raises(ValueError, match=words):
        build()
