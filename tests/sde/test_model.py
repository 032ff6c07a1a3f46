"""Score models: Tweedie, denoising score matching, parametrizations, the transform."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

from samplers.calls import Watch
from sde import PARAMETRIZATIONS, VPSDE, ChainSDE, Denoiser, NoisyClassifier, Transform
from sde.guidance import ClassifierFree, Conditional
from sde.model.parametrization import noise_coefficients
from sde.networks import MLP
from sde.process import expand
from tests.oracles.exact import GaussianMixture
from tests.oracles.processes import ending_with_signal

MEANS = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.0, -1.2]], dtype=torch.float64)
SIGMA_DATA = 0.9


@pytest.fixture
def oracle(process):
    return GaussianMixture(process, MEANS, 0.4)


@pytest.fixture
def batch(process, generator):
    t = torch.rand(6, generator=generator, dtype=torch.float64) * (process.t_max - process.t_min) + process.t_min
    x0, z = torch.randn(2, 6, 2, generator=generator, dtype=torch.float64)
    return x0, z, t


def test_score_is_the_gradient_of_the_log_density(oracle, batch, process):
    x0, z, t = batch
    x = process.perturb(x0, t, z).requires_grad_()
    (gradient,) = torch.autograd.grad(oracle.log_prob(x, t).sum(), x)
    torch.testing.assert_close(oracle.score(x, t), gradient, rtol=1e-6, atol=1e-6)


def test_denoising_score_matching_identity(oracle, batch, process):
    """(alpha / sigma)^2 |D - x_0|^2 = |sigma score + z|^2, sample by sample."""
    x0, z, t = batch
    x = process.perturb(x0, t, z)
    left = (process.alpha(t) / process.sigma(t)) ** 2 * (oracle(x, t) - x0).square().sum(1)
    right = (process.sigma(t)[:, None] * oracle.score(x, t) + z).square().sum(1)
    torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-8)


def test_noise_and_velocity_follow(oracle, batch, process):
    x0, z, t = batch
    x = process.perturb(x0, t, z)
    score = oracle.score(x, t)
    torch.testing.assert_close(oracle.noise(x, t), -process.sigma(t)[:, None] * score)
    velocity = process.f(t)[:, None] * x - process.g2(t)[:, None] / 2 * score
    torch.testing.assert_close(oracle.velocity(x, t), velocity)


class Perfect(nn.Module):
    """A network that answers what its parametrization asks for, from an exact model; written from the papers."""

    def __init__(self, oracle, parametrization):
        super().__init__()
        self.oracle, self.parametrization = oracle, parametrization

    def forward(self, scaled, c_noise, cond):
        sde = self.oracle.sde
        t = sde.t_of_log_snr(-8 * c_noise)
        a, s = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        x = scaled * (s**2 + a**2 * SIGMA_DATA**2).sqrt()
        denoised, noise, score = self.oracle(x, t), self.oracle.noise(x, t), self.oracle.score(x, t)
        ratio = s / a
        edm = (denoised - SIGMA_DATA**2 / (ratio**2 + SIGMA_DATA**2) * (x / a)) * (ratio**2 + SIGMA_DATA**2).sqrt()
        v = (a * noise - s * denoised) / (a**2 + s**2).sqrt()
        answers = {"noise": noise, "denoised": denoised, "score": score, "v": v, "edm": edm / (ratio * SIGMA_DATA)}
        answers |= {"scaled_score": s * score, "flow": noise - denoised}
        return answers[self.parametrization]


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_parametrizations(parametrization, batch, process):
    # Each of them, up to where there is any signal.
    process = ending_with_signal(process)
    oracle, (x0, z, t) = GaussianMixture(process, MEANS, 0.4), batch
    t = t.clamp(max=process.t_max)
    x = process.perturb(x0, t, z)
    model = Denoiser(Perfect(oracle, parametrization), process, parametrization, SIGMA_DATA)
    torch.testing.assert_close(model(x, t), oracle(x, t), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model(x[:1], t[0]), oracle(x[:1], t[0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_parametrizations_at_an_open_noise_end(parametrization):
    """There D = E[x_0]: finite of some whatever the network says, and refused of those that divide by alpha."""
    sde = ChainSDE(zero_terminal_snr=True)
    if parametrization in ("noise", "score", "scaled_score"):
        words = r"its D divides by alpha, which is 0 at t_max = 1 .*: needs one of denoised, v, edm, flow, or a smaller"
        with pytest.raises(ValueError, match=words):
            Denoiser(nn.Identity(), sde, parametrization)
        assert Denoiser(nn.Identity(), replace(sde, t_max=0.99), parametrization)
        return
    mixture = GaussianMixture(sde, MEANS, 0.4)

    class AtTheEnd(nn.Module):
        def forward(self, x, c_noise, cond):
            # c_noise is log(2^24) / 4, the largest level that float32 tells apart.
            torch.testing.assert_close(c_noise, torch.full_like(c_noise, 6 * math.log(2)))
            mean = MEANS.mean(0).expand(len(x), 2)
            return {"denoised": mean, "v": -mean, "edm": mean / SIGMA_DATA, "flow": x - mean}[parametrization]

    model = Denoiser(AtTheEnd(), sde, parametrization, SIGMA_DATA)
    x, t = torch.randn(4, 2, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    for time in (t, t.expand(4), sde.points(t[None])[0]):
        torch.testing.assert_close(model(x, time), mixture(x, t))
        torch.testing.assert_close(model.score(x, time), -x)


class Answers(nn.Module):
    """A network that says the same whatever it is asked."""

    num_classes = 3

    def __init__(self, output):
        super().__init__()
        self.register_buffer("output", output)

    def forward(self, x, c_noise, cond):
        return self.output


class Seen:
    """Keeps the outputs that a watch tells of."""

    def __init__(self):
        self.outputs = []

    def __call__(self, x, t, output):
        self.outputs.append(output)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_what_follows_of_an_output_is_exact_in_float32(parametrization, process, generator):
    """Down to the smallest sigma, where alpha D - x of D in float32 has few digits: against float64, of the same output
    and state, for one time, for many, for a condition that is bound, and guided; by no further call of the network."""
    process = ending_with_signal(process)
    x, output = torch.randn(2, 5, 4, generator=generator)
    times = torch.linspace(process.t_min, process.t_max, 5, dtype=torch.float64)
    wide, narrow = (
        Denoiser(Answers(output.to(d)), process, parametrization, SIGMA_DATA) for d in (torch.double, torch.float)
    )
    labels = [0, 1, 2, 0, 1]
    guided = (ClassifierFree(narrow, labels, 1), ClassifierFree(narrow, labels, 2.5, batched=False))
    # With the network calls of each, whose output is the same for every condition.
    models = {narrow: 1.0, Conditional(narrow, labels): 1.0, guided[0]: 1.0, guided[1]: 2.0}
    for t in (times, times.float(), times[0], times[2]):
        a, s, f, g2 = (
            expand(of(t.double()), x.double()) for of in (process.alpha, process.sigma, process.f, process.g2)
        )
        denoised = wide(x.double(), t.double())
        score = (a * denoised - x) / s**2
        wanted = {"score": score, "noise": -s * score, "velocity": f * x - g2 / 2 * score}
        for (name, value), (model, calls) in product(wanted.items(), models.items()):
            seen = Seen()
            with Watch(model, 5, seen) as watch:
                found = getattr(model, name)(x, t)
            assert (found.dtype, watch.nfe.tolist()) == (torch.float32, [calls] * 5)
            torch.testing.assert_close(seen.outputs, [denoised.float()], rtol=1e-4, atol=1e-4)
            scale = value.abs().flatten(1).amax(1)[:, None]
            assert ((found - value) / scale).abs().max() < 1e-6, (name, t)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_noise_and_denoised_make_the_state(parametrization, generator):
    """alpha D + sigma E[z | x] = x for every output: by the forms of each, and by those of a plain function."""
    a, s = 3 * torch.rand(2, 20, generator=generator, dtype=torch.float64)
    c_skip, c_out, _ = PARAMETRIZATIONS[parametrization](a, s, SIGMA_DATA)
    own = noise_coefficients(parametrization, a, s, SIGMA_DATA)
    with pytest.MonkeyPatch.context() as patch:
        formulas = PARAMETRIZATIONS[parametrization]
        patch.setitem(PARAMETRIZATIONS, "another", lambda *at: formulas(*at))
        for p, q in (own, noise_coefficients("another", a, s, SIGMA_DATA)):
            torch.testing.assert_close(s * p + a * c_skip, torch.ones_like(a))
            torch.testing.assert_close(s * q + a * c_out, torch.zeros_like(a))


def test_edm_is_that_of_karras():
    """Table 1 of Karras et al. 2022, which has alpha = 1."""
    s = torch.tensor([0.05, 0.5, 7.0], dtype=torch.float64)
    d = 0.5
    c_skip, c_out, c_in = PARAMETRIZATIONS["edm"](torch.ones_like(s), s, d)
    torch.testing.assert_close(c_skip, d**2 / (s**2 + d**2))
    torch.testing.assert_close(c_out, s * d / (s**2 + d**2).sqrt())
    torch.testing.assert_close(c_in, 1 / (s**2 + d**2).sqrt())


def test_the_network_sees_log_sigma_over_four(process):
    seen = []

    class Spy(nn.Module):
        def forward(self, x, c_noise, cond=None):
            seen.append(c_noise)
            return x

    t = torch.tensor([0.3, 0.6], dtype=torch.float64)
    Denoiser(Spy(), process)(torch.zeros(2, 3), t)
    NoisyClassifier(Spy(), process)(torch.zeros(2, 3), t[0])
    expected = ((process.sigma(t) / process.alpha(t)).log() / 4).float()
    torch.testing.assert_close(seen[0], expected)
    torch.testing.assert_close(seen[1], expected[:1].expand(2))


def test_refusals():
    with pytest.raises(ValueError, match="noise, denoised, v, score, scaled_score, edm"):
        Denoiser(nn.Identity(), VPSDE(), "epsilon")
    with pytest.raises(ValueError, match="positive standard deviation"):
        Denoiser(nn.Identity(), VPSDE(), sigma_data=0.0)

    class Twice(nn.Module):
        def forward(self, x, c_noise, cond):
            return torch.cat([x, x], 1)

    with pytest.raises(ValueError, match=r"shape \(2, 6\) for x of shape \(2, 3\)"):
        Denoiser(Twice(), VPSDE())(torch.zeros(2, 3), torch.tensor(0.5))


@pytest.mark.parametrize("transform", [Transform(), Transform((3.0,), (2.0,)), Transform((1.0, -4.0), (0.1, 7.0))])
def test_transform_is_invertible(transform, generator):
    x = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(transform.decode(transform.encode(x)), x)
    jacobian = torch.func.jacrev(lambda u: transform.encode(u[None])[0])(x[0]).reshape(6, 6)
    assert transform.log_det((2, 3)) == pytest.approx(torch.linalg.slogdet(jacobian).logabsdet.item())


def test_transform_of_levels(generator):
    transform = Transform.of_levels(17)
    x = torch.arange(17.0)[:, None]
    for u in (torch.zeros(17, 1), torch.rand(17, 1, generator=generator), torch.full((17, 1), 0.999)):
        z = transform.encode(transform.dequantize(x, u))
        assert -1 <= z.min() <= z.max() < 1
        assert torch.equal(transform.quantize(transform.decode(z)), x)
    assert transform.quantize(torch.tensor([[-3.0], [40.0]])).flatten().tolist() == [0, 16]


def test_transform_standardises(generator):
    x = torch.randn(500, 2, 4, generator=generator) * torch.tensor([3.0, 0.1])[:, None] + 5
    z = Transform.standardize(x).encode(x)
    assert z.mean((0, 2)).abs().max() < 1e-5
    torch.testing.assert_close(z.std((0, 2), correction=0), torch.ones(2))
    with pytest.raises(ValueError, match="channel 1 of the data is constant"):
        Transform.standardize(torch.stack([torch.arange(5.0), torch.ones(5)], 1))


@pytest.mark.parametrize("bad", [{"shift": (0.0, 1.0)}, {"scale": (0.0,)}, {"num_levels": 1}, {"scale": (math.nan,)}])
def test_bad_transforms(bad):
    with pytest.raises(ValueError, match=r"scale|levels"):
        Transform(**bad)


class Linear(nn.Linear):
    def forward(self, x, c_noise, cond):
        return super().forward(x)


@pytest.mark.parametrize(("moved", "words"), [
    ({"dtype": torch.half}, "the network torch.float16 on cpu"),
    ({"device": "meta"}, "the network torch.float32 on meta"),
])  # fmt: skip
def test_row_38_other_types_and_devices(moved, words):
    network = Linear(2, 2).to(**moved)
    with pytest.raises(ValueError, match=f"x is torch.float32 on cpu, {words}: bring one to the other"):
        Denoiser(network, VPSDE())(torch.randn(3, 2), torch.tensor(0.5))


def test_a_denoiser_compiled_in_place():
    """At times of a run, which carry their levels, at others, and at those of each row."""
    model = Denoiser(MLP((2,), width=8, layers=1), VPSDE(), event_shape=(2,))
    torch.nn.init.normal_(model.network.head.weight)
    x, (late, early) = torch.randn(3, 2), model.sde.points(torch.tensor([0.7, 0.2], dtype=torch.float64))
    times = (late, early, torch.tensor(0.5), torch.tensor([0.1, 0.5, 0.9]))
    with torch.no_grad():
        expected = [model(x, t) for t in times]
        model.compile(backend="eager")
        for t, value in zip(times, expected, strict=True):
            torch.testing.assert_close(model(x, t), value)
