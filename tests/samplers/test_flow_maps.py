"""Samplers of flow maps: exact on Gaussian data whatever the grid, in the same loop, and refused elsewhere."""

import pytest
import torch

from samplers import (
    DDIM,
    FLOW_MAP_SAMPLERS,
    GRIDS,
    SAMPLERS,
    Jump,
    Renoise,
    decode,
    encode,
    generate,
    likelihood_report,
    log_likelihood,
    plan,
    sample,
    variational_bound,
)
from samplers.grid import make_jumps
from sde import VPSDE, Transform
from tests.oracles.exact import Gaussian
from tests.oracles.flow_maps import GaussianFlowMap
from tests.oracles.processes import PROCESSES

MEAN = torch.tensor([0.3, -0.6, 1.2]).double()
ROOT = torch.tensor([[0.8, 0.0, 0.0], [0.3, 0.5, 0.0], [-0.2, 0.4, 0.1]]).double()
COVARIANCE = ROOT @ ROOT.T
VP = VPSDE()


def flow_map(process, **options):
    return GaussianFlowMap(process, MEAN, COVARIANCE, **options)


def law(process, t):
    """Mean and covariance of the state at t."""
    alpha = process.alpha(t)
    return alpha * MEAN, alpha**2 * COVARIANCE + process.sigma(t) ** 2 * torch.eye(3).double()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("process", PROCESSES)
def test_jumps_land_where_the_flow_leads(process, grid):
    """In one step or in many, from the open noise end as well."""
    sde = PROCESSES[process]
    model, x = flow_map(sde), sde.prior_std() * torch.randn(4, 3, dtype=torch.float64)
    for steps in (1, 2, 7):
        times = make_jumps(sde, grid, steps)
        assert len(times) == steps + 1
        assert times[0] == sde.t_max
        out = sample(model, Jump(), x, times)
        torch.testing.assert_close(out, model(x, times[0], times[-1]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES)
def test_renoised_states_have_the_law_of_their_time(process):
    """Exactly, from the gains of zero and of unit impulses of noise, however the state before was spread."""
    sde = PROCESSES[process]
    model, times = flow_map(sde), make_jumps(sde, "uniform", 3)
    for stop in (1, 2, 3):
        # Rows: zero, unit vectors of x, then one noise vector after the other.
        x = torch.zeros(4 + 3 * (stop - (stop == 3)), 3, dtype=torch.float64)
        x[1:4] = torch.eye(3)
        drawn = 0

        def impulses(like):
            nonlocal drawn
            noise = torch.zeros_like(like)
            noise[4 + 3 * drawn : 7 + 3 * drawn] = torch.eye(3)
            drawn += 1
            return noise

        ends = sample(model, Renoise(), x, times[: stop + 1], impulses, denoise=False)
        offset, gains = ends[0], ends[1:] - ends[0]
        mean, covariance = law(sde, times[0])
        arrived = gains[:3].T @ covariance @ gains[:3] + gains[3:].T @ gains[3:]
        expected = law(sde, times[stop])
        torch.testing.assert_close(offset + mean @ gains[:3], expected[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(arrived, expected[1], rtol=1e-9, atol=1e-9)
        assert drawn == stop - (stop == 3), "at the data end no noise is drawn"


@pytest.mark.parametrize("name", FLOW_MAP_SAMPLERS)
def test_a_grid_that_ends_early_is_ended_by_a_jump_to_the_data(name):
    model, times = flow_map(VP), torch.tensor([1.0, 0.6, 0.2], dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64)
    early = sample(model, SAMPLERS[name](), x, times, torch.zeros_like, denoise=False)
    late = sample(model, SAMPLERS[name](), x, times, torch.zeros_like)
    torch.testing.assert_close(late, model(early, times[-1], torch.tensor(VP.t_min).double()))
    samples = generate(model, SAMPLERS[name](), 2, (3,), grid=times)
    assert samples.nfe.tolist() == [3, 3]


@pytest.mark.parametrize("name", FLOW_MAP_SAMPLERS)
def test_samples_by_seeds_in_data_units_with_calls_counted(name):
    model = flow_map(VP, transform=Transform((1.0, 2.0, 3.0), (2.0, 3.0, 4.0)))
    whole, parts, one = (
        generate(model, SAMPLERS[name](), n, (3,), steps=3, seed=3, batch_size=size)
        for n, size in ((7, 7), (7, 3), (1, 1))
    )
    torch.testing.assert_close(parts.x, whole.x, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.x, whole.x[:1], rtol=0, atol=1e-12)
    # The last jump lands on data: there is no call behind it.
    assert whole.nfe.tolist() == [3] * 7
    other = generate(model, SAMPLERS[name](), 1, (3,), steps=3, seed=4)
    assert (other.x - one.x).abs().max() > 1e-3
    many = generate(model, SAMPLERS[name](), 4000, (3,), steps=2).x
    mean, covariance = law(VP, torch.tensor(VP.t_min).double())
    scale, shift = torch.tensor([2.0, 3.0, 4.0]).double(), torch.tensor([1.0, 2.0, 3.0]).double()
    assert (many.mean(0) - (shift + scale * mean)).abs().max() < 0.2
    torch.testing.assert_close(torch.cov(many.T), covariance * scale * scale[:, None], rtol=0.1, atol=0.3)


def test_padded_items_stay_padded_and_do_not_depend_on_their_padding():
    def padded_map(length):
        return GaussianFlowMap(VP, torch.full((length,), 0.4).double(), torch.eye(length).double() * 0.25)

    for name in FLOW_MAP_SAMPLERS:
        short = generate(padded_map(5), SAMPLERS[name](), 3, (5,), sizes=[2, 3, 5])
        long = generate(padded_map(8), SAMPLERS[name](), 3, (8,), sizes=[2, 3, 5])
        torch.testing.assert_close(long.x[:, :5], short.x)
        assert not short.x[0, 2:].any()
        assert not long.x[:, 5:].any()


def test_what_flow_maps_cannot_be_asked():
    model, score = flow_map(VP), Gaussian(VP, MEAN, 0.5)
    x = torch.randn(2, 3, dtype=torch.float64)
    for name, ask in {
        "plan": lambda: plan(model, (3,), 5),
        "log_likelihood": lambda: log_likelihood(model, x),
        "likelihood_report": lambda: likelihood_report(model, x),
        "variational_bound": lambda: variational_bound(model, x),
        "encode": lambda: encode(model, x),
        "decode": lambda: decode(model, x),
        "DDIM": lambda: generate(model, DDIM(), 2, (3,)),
    }.items():
        with pytest.raises(TypeError, match=f"{name}: GaussianFlowMap is a flow map, which .* has no score"):
            ask()
    for name in FLOW_MAP_SAMPLERS:
        sampler = SAMPLERS[name]()
        with pytest.raises(TypeError, match=f"sampler = {type(sampler).__name__}: asks for a flow map"):
            generate(score, sampler, 2, (3,))
        with pytest.raises(TypeError, match="asks for a flow map"):
            sample(score, sampler, x, [1.0, 0.5])
    with pytest.raises(TypeError, match="needs an instance"):
        generate(model, Jump, 2, (3,))
    with pytest.raises(ValueError, match="path: a flow map predicts no data"):
        generate(model, Jump(), 2, (3,), path=2)
