"""Plans: better than every fixed choice, within their budget, for every process."""

import itertools
import json
import math
import statistics

import pytest
import torch

from samplers import GRIDS, ExponentialAdams, Plan, SeededNoise, generate, pilot_count, plan, sample
from samplers.grid import make_grid
from samplers.numerics.exponential import PREDICTIONS
from samplers.numerics.weights import exponential_weights
from samplers.planning.fit import RIDGES, Moments, fit_step
from samplers.planning.fitted import Fitter
from samplers.planning.plan import BUDGET
from sde import VPSDE, ScoreModel
from sde.guidance.classifier_free import ClassifierFree
from tests.batteries.tiers import TWO
from tests.oracles.exact import GaussianMixture
from tests.oracles.processes import PROCESSES

MODES = torch.tensor([[1.0, 0.2, -0.5], [-0.8, 0.6, 0.4], [0.1, -1.0, 0.0], [0.9, -0.3, 0.7]], dtype=torch.float64)


@pytest.fixture(scope="module", params=PROCESSES)
def model(request):
    return GaussianMixture(PROCESSES[request.param], MODES, 0.15)


class Counting(ScoreModel):
    """Counts the rows it is asked for."""

    def __init__(self, model):
        super().__init__(model.sde)
        self.inner, self.rows_seen = [model], 0
        self.register_buffer("like", torch.zeros(1, dtype=torch.float64))

    def forward(self, x, t):
        assert not torch.is_grad_enabled()
        self.rows_seen += len(x)
        return self.inner[0](x, t)


def median_error(model, sampler, times, x, exact):
    end = sample(model, sampler, x, times, denoise=False)
    return (end - exact).norm(dim=1).median().item()


# Sixty fixed choices and a long run for the truth: two processes.
@pytest.mark.parametrize("model", TWO, indirect=True)
@pytest.mark.parametrize("calls", [5, 10, 20])
def test_better_than_every_fixed_choice(model, calls):
    x = SeededNoise(range(100))(torch.empty(100, 3, dtype=torch.float64)) * model.sde.prior_std()
    exact = sample(model, ExponentialAdams(4), x, make_grid(model.sde, "log_snr", 800), denoise=False)
    fixed = min(
        median_error(model, ExponentialAdams(order, prediction), make_grid(model.sde, grid, calls), x, exact)
        for order, prediction, grid in itertools.product((1, 2, 3, 4), PREDICTIONS, GRIDS)
    )
    found = plan(model, (3,), calls)
    assert median_error(model, found.sampler, found.times, x, exact) < 0.6 * fixed


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 5, 7, 8, 30])
def test_calls_and_budget(calls):
    model = Counting(GaussianMixture(VPSDE(), MODES, 0.15))
    state = torch.get_rng_state()
    found = plan(model, (3,), calls)
    assert found.nfe == calls
    assert found.cost == model.rows_seen <= BUDGET * calls
    assert found.samples == pytest.approx(found.cost / calls)
    assert torch.equal(state, torch.get_rng_state())
    model.rows_seen = 0
    sample(model, found.sampler, torch.ones(2, 3, dtype=torch.float64), found.times, denoise=False)
    assert model.rows_seen == 2 * calls
    assert generate(model, found.sampler, 3, (3,)).mean_nfe == calls + 1


@pytest.mark.parametrize("model", TWO, indirect=True)
def test_a_plan_is_kept_as_plain_values(model):
    found = plan(model, (3,), 6, seed=1)
    again = plan(model, (3,), 6, seed=1)
    kept = Plan.of_record(json.loads(json.dumps(found.record())))
    assert found.sampler == again.sampler == kept.sampler
    assert torch.equal(found.times, kept.times)
    assert (found.error, found.cost, found.errors) == (kept.error, kept.cost, kept.errors)
    assert plan(model, (3,), 6, seed=2).sampler != found.sampler
    fixed = Plan(ExponentialAdams(2, "v"), found.times, 0.1, 5, 1.0)
    assert Plan.of_record(fixed.record()).sampler == fixed.sampler


class Labelled(GaussianMixture):
    """The mode of each row's label, or the mixture where there is none."""

    null_trained = True
    num_classes = 4

    def forward(self, x, t, cond=None):
        if cond is None:
            return super().forward(x, t)
        alpha, var = self.moments(t, x)
        mean = self.means[cond["labels"].clamp(min=0)]
        own = mean + alpha * self.std**2 / var * (x - alpha * mean)
        return torch.where((cond["labels"] < 0)[:, None], super().forward(x, t), own)


@pytest.mark.parametrize("model", TWO, indirect=True)
def test_guided_models_are_planned_for(model):
    base = Labelled(model.sde, MODES, 0.15)
    pilots = ClassifierFree(base, torch.arange(pilot_count(8)) % 4, 2.0)
    found = plan(pilots, (3,), 8)
    assert found.samples <= BUDGET
    guided = ClassifierFree(base, torch.arange(40) % 4, 2.0)
    x = SeededNoise(range(40))(torch.empty(40, 3, dtype=torch.float64)) * model.sde.prior_std()
    exact = sample(guided, ExponentialAdams(4), x, make_grid(model.sde, "log_snr", 400), denoise=False)
    fixed = [ExponentialAdams(order, prediction) for order in (1, 2, 3, 4) for prediction in PREDICTIONS]
    grid = make_grid(model.sde, "log_snr", 8)
    least = min(median_error(guided, sampler, grid, x, exact) for sampler in fixed)
    assert median_error(guided, found.sampler, found.times, x, exact) < least


def test_a_fit_leaves_an_exact_method_alone(generator):
    """Where outputs are linear in lambda, the method of order 2 is exact, and there is nothing to fit."""
    nodes, end = (0.0, -0.3, -0.9, -1.0), 0.4
    a, b = torch.randn(2, 5, 6, dtype=torch.float64, generator=generator)
    outputs = torch.stack([a + b * node for node in nodes])
    exact = sum(w * o for w, o in zip(exponential_weights(nodes[:2], 0.0, end, -1.0), outputs[:2], strict=True))
    weights, left = fit_step(nodes, end, outputs, -(torch.tensor(-end).exp()) * exact)
    assert left.max() < 1e-6
    change = torch.einsum("k,kpc->pc", torch.from_numpy(weights), outputs)
    torch.testing.assert_close(change, -(torch.tensor(-end).exp()) * exact, rtol=1e-6, atol=1e-6)


def test_a_fit_finds_weights_and_ignores_an_outlier(generator):
    nodes, end = (0.0, -0.4, -0.9), 0.5
    outputs = torch.randn(3, 12, 4, dtype=torch.float64, generator=generator)
    truth = torch.tensor([-0.4, 0.1, -0.05], dtype=torch.float64)
    change = torch.einsum("k,kpc->pc", truth, outputs)
    change[3] += 5
    weights, left = fit_step(nodes, end, outputs, change)
    assert torch.from_numpy(weights).sub(truth).abs().max() < 1e-4
    assert left[3] > 50 * left.median()


def noisy(pilots, generator):
    """Features of pilots in the plane, and targets that have nothing to do with them."""
    nodes = tuple(-0.2 * number for number in range(8))
    return nodes, torch.randn(9, pilots, 2, dtype=torch.float64, generator=generator)


def test_a_fit_to_noise_holds_on_to_its_base(generator):
    """Where the exponential method of order 2 is exact but for noise, eight free weights fit the noise of a few pilots,
    and leave new ones more than it does; with the ridge that is chosen they hardly do."""
    free, chosen = [], []
    for _ in range(8):
        nodes, (*outputs, noise) = noisy(12, generator)
        _, (*new, aim) = noisy(1000, generator)
        outputs, new = torch.stack(outputs), torch.stack(new)
        base = torch.zeros(8, dtype=torch.float64)
        base[:2] = -math.exp(-0.2) * torch.tensor(exponential_weights(nodes[:2], nodes[0], 0.2, -1.0))
        for ridges, left in ((RIDGES[:1], free), (RIDGES, chosen)):
            weights, _ = fit_step(nodes, 0.2, outputs, noise + torch.einsum("k,kpc->pc", base, outputs), ridges)
            rest = aim + torch.einsum("k,kpc->pc", base - torch.from_numpy(weights), new)
            left.append((rest.norm(dim=1).log().mean() - aim.norm(dim=1).log().mean()).item())
    assert statistics.fmean(chosen) < 0.5 * statistics.fmean(free)
    assert statistics.fmean(chosen) < 0.25


def test_the_ridge_chosen_is_that_of_the_folds_left_out(generator):
    """By fits of their own to what is left of the pilots when each quarter is taken away."""
    _, values = noisy(16, generator)
    features, aim = values[:8], 0.3 * values[0] + 0.1 * values[8]
    gram, slope = torch.einsum("ipc,jpc->pij", features, features), torch.einsum("ipc,pc->pi", features, aim)
    moments, ridges = Moments(gram, slope, aim.square().sum(1)), torch.tensor([1e-7, 1e-2, 1.0], dtype=torch.float64)
    left = torch.empty(3, 16, dtype=torch.float64)
    for pilots in torch.arange(16).view(4, 4):
        kept = torch.ones(16, dtype=bool)
        kept[pilots] = False
        for ridge, row in zip(ridges, left, strict=True):
            weights = Moments(gram[kept], slope[kept], aim[kept].square().sum(1)).fit(ridge[None])[0]
            row[pilots] = (aim - torch.einsum("k,kpc->pc", weights, features))[pilots].square().sum(1)
    floor = 0.3 * left.median(1).values.min()
    torch.testing.assert_close(moments.validated(ridges), (left + floor).log().mean(1), rtol=1e-9, atol=0)


def test_grids_that_begin_alike_are_called_once():
    model = Counting(GaussianMixture(VPSDE(), MODES, 0.15))
    x = SeededNoise(range(8))(torch.empty(8, 3, dtype=torch.float64))
    exact = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grids = [torch.tensor([1.0, *rest], dtype=torch.float64) for rest in ([0.5, 0.2, 0.01], [0.5, 0.1, 0.01])]
    heard, fitted = {}, []
    for shared in (heard, heard, None, None):
        fitter, times = Fitter(lambda log_ratio: exact, torch.arange(3), shared), grids[len(fitted) % 2]
        sample(model, fitter, x, times, denoise=False)
        fitted.append(fitter.fitted(times))
    assert model.rows_seen == 8 * (3 + 1 + 3 + 3)
    assert fitted[:2] == fitted[2:]


@pytest.mark.parametrize(("change", "words"), [
    ({"times": [1.0, 0.5, 0.6, 0.001]}, "decreasing"), ({"weights": [[0.1]]}, "a row per step"),
    ({"weights": [["a"], [0.1, 0.2], [0.1, 0.2, 0.3]]}, "finite"),
    ({"weights": [[float("nan")], [0.1, 0.2], [0.1, 0.2, 0.3]]}, "finite"),
])  # fmt: skip
def test_damaged_records(change, words):
    record = plan(GaussianMixture(VPSDE(), MODES, 0.15), (3,), 3).record()
    record |= {"sampler": "linear_multistep", "options": {"times": record["times"], "weights": [[0.1]] * 3}}
    record["options"]["weights"] = [[0.1], [0.1, 0.2], [0.1, 0.2, 0.3]]
    assert Plan.of_record(json.loads(json.dumps(record))).nfe == 3
    record["options"] |= change
    record["times"] = change.get("times", record["times"])
    with pytest.raises(ValueError, match=words):
        Plan.of_record(record)


def test_bad_input():
    model = GaussianMixture(VPSDE(), MODES, 0.15)
    with pytest.raises(ValueError, match="calls = 0: needs an integer of at least 1"):
        plan(model, (3,), 0)
    with pytest.raises(TypeError, match="expected a score model"):
        plan(ExponentialAdams(), (3,), 5)
    model.event_shape = (3,)
    with pytest.raises(ValueError, match=r"event_shape = \(4,\)"):
        plan(model, (4,), 5)


class Broken(ScoreModel):
    """Becomes NaN on the way."""

    def forward(self, x, t):
        return torch.zeros_like(x) if t > 0.5 else torch.full_like(x, torch.nan)


def test_a_broken_model_is_a_sentence():
    with pytest.raises(ArithmeticError, match="became non-finite"):
        plan(Broken(VPSDE()), (3,), 5)
