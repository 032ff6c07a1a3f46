"""The protocol: a chain on integers and a latent space pass through ``generate`` unopened, and what is refused."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from samplers import (
    DDIM,
    SAMPLERS,
    SCORE_SAMPLERS,
    SeededNoise,
    discrete_bound,
    encode,
    generate,
    log_likelihood,
    plan,
    sample,
    variational_bound,
)
from samplers.noise.brownian import BrownianNoise
from samplers.noise.door import as_noise
from samplers.protocol import (
    GaussianProcess,
    GaussianScoreModel,
    Identity,
    Noise,
    Process,
    Transform,
    missing,
    suits,
    transform_of,
)
from sde import VPSDE, Denoiser
from sde import Transform as Affine
from tests.oracles.exact import Gaussian
from tests.oracles.processes import PROCESSES


@dataclass(frozen=True)
class TwoStates:
    """A Markov chain on 0 and 1 that jumps at rate 1: P(x_t = x_0) = (1 + exp(-2 t)) / 2."""

    t_min: float = 0.0
    t_max: float = 5.0

    def state_dtype(self, dtype):
        return torch.long

    def stay(self, t):
        return (1 + torch.exp(-2 * t)) / 2

    def sample_prior(self, like, noise, t=None):
        return (noise.uniform(like) < 0.5).long()

    def noised(self, x0, t, noise):
        return torch.where(noise.uniform(x0) < self.stay(t), x0, 1 - x0)

    def prior_log_prob(self, x):
        return -math.log(2) * torch.full((len(x),), x[0].numel(), dtype=torch.float64)

    def constrain(self, noise):
        return noise

    def last_call(self, model, x, t, noise):
        return model(x, t).argmax(-1)

    def valid(self, x):
        return ((x == 0) | (x == 1)).flatten(1).all(1)

    def describe(self, t):
        return f"t = {t:.4g}, P(stay) = {self.stay(t):.4g}"


class Bits(nn.Module):
    """The exact p(x_0 | x_t) of independent bits that are 1 with probability p: (B, L) -> (B, L, 2)."""

    def __init__(self, sde, p):
        super().__init__()
        self.sde, self.p = sde, p

    def rows(self, index):
        return self

    def forward(self, x, t):
        prior = torch.tensor([1 - self.p, self.p], dtype=torch.float64)
        stay = self.sde.stay(t)
        likelihood = torch.where(x[..., None] == torch.arange(2), stay, 1 - stay)
        joint = prior * likelihood
        return joint / joint.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Reverse:
    """x_s from q(x_s | x_t, x_0), with x_0 summed out by the model."""

    needs: ClassVar[type] = Process
    order: ClassVar[float] = 0
    steps: ClassVar[int] = 10
    grid: ClassVar[str] = "uniform"

    def step(self, model, x, t, s, noise, carry=None):
        guess = model(x, t)
        both = torch.arange(2)
        to_s = torch.where(both[:, None] == both, model.sde.stay(s), 1 - model.sde.stay(s))
        back = torch.where(x[..., None] == both, model.sde.stay(t - s), 1 - model.sde.stay(t - s))
        joint = to_s * back[..., None, :]
        weights = (guess[..., None] * joint / joint.sum(-1, keepdim=True)).sum(-2)
        return (noise.uniform(x) < weights[..., 1]).long(), carry


LENGTH = 8


@pytest.mark.parametrize("end", [0.0, 0.3])
def test_a_chain_on_integers_has_its_marginals(end):
    """At the data end the bits' law is p; on the way it is p P(stay) + (1 - p) P(jump), as the closed form says."""
    chain, p, n = TwoStates(), 0.85, 4000
    drawn = []
    times = torch.linspace(chain.t_max, end, 11, dtype=torch.float64)
    options = {"grid": times, "batch_size": n, "callback": lambda i, s, x: drawn.append(x) and None}
    last = generate(Bits(chain, p), Reverse(), n, (LENGTH,), **options).x
    assert torch.equal(last, drawn[-1]) == (end == 0), "the last call guesses what is not known yet"
    for s, x in zip(times[1:], drawn, strict=True):
        stay = chain.stay(s).item()
        exact = p * stay + (1 - p) * (1 - stay)
        error = (exact * (1 - exact) / (n * LENGTH)) ** 0.5
        # The start is at P(stay) = 0.5 exp(-10) off the true law: less than a tenth of an error.
        assert abs(x.double().mean().item() - exact) < 5 * error, s
    # Bits are independent: the sample of all of them has a binomial number of ones.
    ones = drawn[-1].sum(1).double()
    assert ones.var().item() == pytest.approx(LENGTH * exact * (1 - exact), rel=0.1)


def test_a_chain_is_drawn_by_generate():
    model = Bits(TwoStates(), 0.85)
    whole = generate(model, Reverse(), 40, (LENGTH,), seed=3)
    assert whole.x.dtype == torch.long
    assert set(whole.x.unique().tolist()) == {0, 1}
    assert whole.nfe.tolist() == [11.0] * 40
    for size in (1, 7):
        assert torch.equal(generate(model, Reverse(), 40, (LENGTH,), seed=3, batch_size=size).x, whole.x)
    assert torch.equal(generate(model, Reverse(), 9, (LENGTH,), seed=3).x, whole.x[:9])
    assert not torch.equal(generate(model, Reverse(), 40, (LENGTH,), seed=4).x, whole.x)


def test_a_chain_starts_at_data_and_is_recorded():
    """From data at a small time most bits are the data's; the path keeps states, and outputs as they are."""
    model, start = Bits(TwoStates(), 0.5), torch.arange(160).reshape(20, LENGTH) % 2
    drawn = generate(model, Reverse(), 20, (LENGTH,), start=start, start_time=1e-3, steps=3, path=4)
    assert (drawn.x == start).double().mean() > 0.97
    assert drawn.path.x.shape == (4, 20, LENGTH)
    assert drawn.path.denoised.shape == (4, 20, LENGTH, 2)


class Bad(Bits):
    def forward(self, x, t):
        return super().forward(x, t)[:1]


class Leaves(Reverse):
    def step(self, model, x, t, s, noise, carry=None):
        return super().step(model, x, t, s, noise)[0].index_fill(0, torch.tensor([2]), 7), carry


def test_what_a_chain_refuses():
    chain = TwoStates()
    model, times = Bits(chain, 0.5), torch.linspace(5, 0, 4, dtype=torch.float64)
    for factory in map(SAMPLERS.get, SCORE_SAMPLERS):
        assert not suits(factory(), chain)
        with pytest.raises(TypeError, match="GaussianProcess, and TwoStates has no alpha, f, g2"):
            generate(model, factory(), 2, (LENGTH,), grid="uniform")
    assert suits(Reverse(), chain)
    assert suits(Reverse(), VPSDE())
    for function in (plan, encode, log_likelihood, variational_bound):
        with pytest.raises(TypeError, match=f"{function.__name__}: works on a GaussianProcess"):
            function(model, *([(LENGTH,), 4] if function is plan else [torch.zeros(2, LENGTH)]))
    with pytest.raises(TypeError, match="discrete_bound: works on a GaussianProcess"):
        discrete_bound(model, torch.zeros(2, LENGTH), 4)
    with pytest.raises(TypeError, match="grid = 'log_snr': works on a GaussianProcess"):
        generate(model, Reverse(), 2, (LENGTH,), grid="log_snr")
    with pytest.raises(TypeError, match="noise = 'brownian': works on a GaussianProcess"):
        generate(model, Reverse(), 2, (LENGTH,), noise="brownian")
    with pytest.raises(TypeError, match=r"x has dtype torch.float32: needs a tensor of torch.int64"):
        sample(model, Reverse(), torch.zeros(2, LENGTH), times, SeededNoise([0, 1]))
    with pytest.raises(ValueError, match="x is not a state of TwoStates in 2 of 2 rows, the first is row 0"):
        sample(model, Reverse(), torch.full((2, LENGTH), 3), times, SeededNoise([0, 1]))
    with pytest.raises(ValueError, match=r"returned shape \(1, 8, 2\) .* with the rows of x"):
        sample(Bad(chain, 0.5), Reverse(), torch.zeros(2, LENGTH, dtype=torch.long), times, SeededNoise([0, 1]))
    with pytest.raises(
        ArithmeticError, match=r"^sample 2 left the states of TwoStates by the end of step 3 of 3 \(t = "
    ):
        sample(model, Leaves(), torch.zeros(3, LENGTH, dtype=torch.long), times, SeededNoise([0, 1, 2]), denoise=False)
    with pytest.raises(TypeError, match="noise = randn_like: it has normal numbers alone"):
        sample(model, Reverse(), torch.zeros(2, LENGTH, dtype=torch.long), times)


class Projection:
    """Data in the plane of two orthonormal vectors in four dimensions, seen as two coordinates: z = x A / 3."""

    num_levels = None
    digest = "projection"
    basis = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, -0.5]], dtype=torch.float64)

    def inner_shape(self, event_shape):
        return (2,)

    def encode(self, x):
        return x @ self.basis.T / 3

    def decode(self, z):
        return 3 * z @ self.basis

    def dequantize(self, x, u):
        return x

    def quantize(self, x):
        return x

    def cells_per_unit(self, event_shape):
        raise NotImplementedError

    def log_det(self, event_shape):
        return None


class Latent(Gaussian):
    """An exact Gaussian in the inner coordinates, of data of shape (4,)."""

    event_shape = (4,)


def latent(sde):
    mean = torch.tensor([0.7, -0.2], dtype=torch.float64)
    return Latent(sde, mean, 0.5, transform=Projection()), Gaussian(sde, mean, 0.5)


@pytest.mark.parametrize("name", ["ddim", "ancestral", "ode"])
@pytest.mark.parametrize("size", [None, 3])
def test_a_transform_of_another_shape(name, size, process):
    """Samples are the decoded samples of the model inside, of the same seeds; so is what the path shows of them."""
    outer, inner = latent(process)
    many = {"steps": 6, "grid": "log_snr", "batch_size": size}
    kept = {} if name == "ode" else {"path": 3}
    drawn, plain = (
        generate(m, SAMPLERS[name](), 7, shape, **many, **kept) for m, shape in ((outer, (4,)), (inner, (2,)))
    )
    torch.testing.assert_close(drawn.x, Projection().decode(plain.x), rtol=0, atol=1e-12)
    if kept:
        torch.testing.assert_close(drawn.path.x, Projection().decode(plain.path.x), rtol=0, atol=1e-12)
        assert drawn.path.denoised.shape == (3, 7, 4)
    started = generate(outer, SAMPLERS[name](), 7, (4,), steps=6, start=drawn.x, start_time=0.5)
    inside = generate(inner, SAMPLERS[name](), 7, (2,), steps=6, start=plain.x, start_time=0.5)
    torch.testing.assert_close(started.x, Projection().decode(inside.x), rtol=0, atol=1e-8)


def test_latents_of_another_shape():
    model, _ = latent(VPSDE())
    x = Projection().decode(torch.randn(5, 2, dtype=torch.float64))
    encoded = encode(model, x)
    assert encoded.latent.shape == (5, 2)
    assert plan(model, (4,), 3).nfe == 3
    with pytest.raises(ValueError, match="transform has no log_det"):
        log_likelihood(model, x)
    with pytest.raises(ValueError, match="transform has no log_det"):
        variational_bound(model, x)
    with pytest.raises(ValueError, match=r"event shape \(4,\), which is \(2,\) in model units"):
        sample(model, DDIM(), x, torch.tensor([0.9, 0.1]))
    with pytest.raises(ValueError, match=r"event_shape = \(2,\): the model's data have the event shape \(4,\)"):
        generate(model, DDIM(), 5, (2,))


def test_everything_of_the_project_has_the_members():
    for sde in PROCESSES.values():
        assert not missing(sde, GaussianProcess)
    model = Denoiser(nn.Identity(), VPSDE())
    assert not missing(model, GaussianScoreModel)
    assert not missing(TwoStates(), Process)
    for transform in (Affine(), Identity(), Projection()):
        assert not missing(transform, Transform)
    for noise in (SeededNoise([1]), BrownianNoise([1], VPSDE()), as_noise(torch.randn_like, VPSDE())):
        assert not missing(noise, Noise)
    assert missing(TwoStates(), GaussianProcess) == [
        "alpha", "f", "g2", "level", "log_alpha", "log_snr", "noise_level", "perturb", "prior_std", "sigma",
        "t_of_log_snr", "t_of_noise_level",
    ]  # fmt: skip


def test_a_module_that_lacks_a_member_is_refused():
    """An sde alone does not make a score model, and a score does not mark one."""

    class Half(nn.Module):
        sde = VPSDE()

        def forward(self, x, t):
            return x

    with pytest.raises(TypeError, match=r"Half has an `sde` but no rows, score, noise, velocity: .*GaussianScoreModel"):
        generate(Half(), DDIM(), 2, (2,))


def test_the_identity_is_filled_in_at_one_door():
    model = Bits(TwoStates(), 0.5)
    assert transform_of(model) == Identity()
    assert transform_of(model) == transform_of(None)
    x = torch.randn(3, 2)
    assert transform_of(model).decode(transform_of(model).encode(x)) is x


def test_equal_transforms_have_one_digest():
    assert Affine.of_levels(4).digest == Affine((2.0,), (2.0,), 4).digest
    digests = [Affine(), Affine((1.0,)), Affine((0.0,), (2.0,)), Affine.of_levels(4), Identity()]
    assert len({transform.digest for transform in digests}) == 5
