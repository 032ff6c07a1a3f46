"""The adaptive solver of the probability-flow ODE: exact flow, scipy as reference, batch-mates, calls, limits."""

import math

import pytest
import torch

from samplers import ODE, generate, sample
from samplers.grid import make_grid
from samplers.numerics.runge_kutta import integrate
from samplers.ode import SOLVERS
from sde import VPSDE
from sde.guidance.classifier_free import ClassifierFree
from tests.batteries.tiers import TWO
from tests.oracles.by_class import ByClass
from tests.oracles.exact import Gaussian, GaussianMixture
from tests.oracles.watched import MIXTURE, Watched


@pytest.mark.parametrize("steps", [1, 3])
def test_the_solver_follows_the_flow(process, steps):
    model = Gaussian(process, torch.tensor([0.7], dtype=torch.float64), 0.5)
    x = torch.tensor([[-1.3], [0.4], [2.0]], dtype=torch.float64) * process.prior_std()
    times = make_grid(process, "log_snr", steps)
    out = sample(model, ODE(1e-9, 1e-9), x, times, denoise=False)
    torch.testing.assert_close(out, model.flow(x, times[0], times[-1]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("process", TWO, indirect=True)
@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_agree(solver, process):
    """Each with the exact flow of a Gaussian, and on a mixture with a tight solution by the own solver."""
    model = Gaussian(process, torch.tensor([0.7, -0.2], dtype=torch.float64), 0.5)
    tolerance = 1e-4 if solver == "RK23" else 1e-7
    sampler = ODE(tolerance, tolerance, solver=solver)
    x = torch.tensor([[-1.3, 0.1], [0.4, 2.0]], dtype=torch.float64) * process.prior_std()
    times = make_grid(process, "log_snr", 1)
    out = sample(model, sampler, x, times, denoise=False)
    torch.testing.assert_close(out, model.flow(x, times[0], times[-1]), rtol=0, atol=1e3 * tolerance)
    mixture = GaussianMixture(process, MIXTURE, 0.3)
    tight = sample(mixture, ODE(1e-10, 1e-10), x, times, denoise=False)
    torch.testing.assert_close(sample(mixture, sampler, x, times, denoise=False), tight, rtol=0, atol=1e3 * tolerance)


@pytest.mark.parametrize("process", ["vp"], indirect=True)
@pytest.mark.parametrize("solver", ["dopri5", "RK45", "LSODA"])
def test_batch_mates_change_nothing(solver, process):
    """Neither values nor calls, beside samples so far away that they need many more steps."""
    model = GaussianMixture(process, MIXTURE, 0.3)
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * process.prior_std()
    far = torch.cat([z[:3], 60 * z[3:]])
    times, sampler = make_grid(process, "log_snr", 1), ODE(1e-5, 1e-5, solver=solver)
    alone, beside = (sample(model, sampler, x, times) for x in (z[:3], far))
    torch.testing.assert_close(beside[:3], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("solver", ["dopri5", "RK45"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_calls_of_each_sample(solver, scale):
    """Those of a sample drawn alone; under guidance each counts twice. Some samples need more than others."""
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 1])
    model = ByClass(VPSDE())
    seen = []
    model.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    sampler = ODE(1e-4, 1e-4, solver=solver)
    samples = generate(ClassifierFree(model, labels, scale), sampler, 7, (2,))
    assert sum(seen) == samples.nfe.sum()
    assert samples.mean_nfe == samples.nfe.mean()
    assert len(samples.nfe.unique()) > 1
    for i in range(7):
        alone = generate(ClassifierFree(model, labels[i : i + 1], scale), sampler, 1, (2,), first=i)
        assert alone.nfe[0] == samples.nfe[i]
        torch.testing.assert_close(alone.x[0], samples.x[i], rtol=0, atol=1e-10)
    chunks = generate(ClassifierFree(model, labels, scale), sampler, 7, (2,), batch_size=4)
    assert torch.equal(chunks.nfe, samples.nfe), "whatever the chunks, and without the rows that fill them up"


@pytest.mark.parametrize(("options", "words"), [
    ({"rtol": 0.0}, "rtol = 0.0"), ({"atol": -1e-3}, "atol = -0.001"), ({"rtol": math.nan}, "rtol = nan"),
    ({"atol": math.inf}, "atol = inf"), ({"max_nfe": 0}, "max_nfe = 0: needs an integer of at least 1"),
    ({"max_nfe": 2.5}, "max_nfe = 2.5"), ({"solver": "rk4"}, "solver = 'rk4': needs one of dopri5, RK23"),
])  # fmt: skip
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        ODE(**options)


@pytest.mark.parametrize("solver", ["dopri5", "RK45"])
def test_too_many_calls(solver):
    with pytest.raises(ArithmeticError, match=r"sample 3 took \d+ calls and is at t = .*max_nfe = 20"):
        generate(Watched(), ODE(1e-10, 1e-10, max_nfe=20, solver=solver), 2, (2,), first=3)


def test_single_precision_stays_single():
    model = GaussianMixture(VPSDE(), MIXTURE.float(), 0.3)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    times = make_grid(VPSDE(), "log_snr", 1)
    own, reference = (sample(model, ODE(1e-4, 1e-4, solver=solver), x, times) for solver in ("dopri5", "RK45"))
    assert own.dtype == reference.dtype == torch.float32
    torch.testing.assert_close(own, reference, rtol=0, atol=2e-3)


def test_failures_name_the_sample_after_others_have_left():
    """Samples 0 and 1 arrive at once; the third goes on alone, and fails."""
    rates, left = torch.tensor([[0.0], [0.0], [5.0]], dtype=torch.float64), []

    def slope(index, t, state):
        left.append(len(index))
        return (torch.where(((index == 2) & (t > 0.9))[:, None], math.nan, -rates[index] * state[0]),)

    with pytest.raises(
        FloatingPointError, match=r"^sample 2 became non-finite in the step from t = .* \(\|x\| = 0\.\d+\)"
    ):
        integrate(slope, (torch.ones(3, 1, dtype=torch.float64),), 0.0, 1.0, rtol=1e-8, atol=1e-8)
    assert left[-1] == 1


def test_adaptive_steps_are_taken_in_full_precision():
    cudnn = torch.backends.cudnn
    seen, held = [], cudnn.allow_tf32

    def slope(index, t, state):
        seen.append(cudnn.conv.fp32_precision if hasattr(cudnn, "conv") else cudnn.allow_tf32)
        return (-state[0],)

    integrate(slope, (torch.ones(1, 1),), 0.0, 1.0)
    assert set(seen) <= {"ieee", False}
    assert cudnn.allow_tf32 == held
