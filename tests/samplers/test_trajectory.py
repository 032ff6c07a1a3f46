"""Trajectories and callbacks: what a run shows on its way, and how it is ended."""

import pytest
import torch

from samplers import DDIM, ODE, AnnealedLangevin, generate, sample
from samplers.grid import make_grid
from sde import VPSDE, Transform
from tests.batteries.variants import VARIANTS
from tests.oracles.exact import GaussianMixture
from tests.oracles.watched import Watched

TRANSFORM = Transform((3.0, -2.0), (10.0, 0.5))


@pytest.mark.parametrize("process", ["straight"], indirect=True)
@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "reverse_sde"])
def test_trajectories_are_calls_that_were_made(name, process):
    """D(x, t) of the model itself at the states shown; the last is the sample; the run is not another for it."""
    model = Watched(process, transform=TRANSFORM)
    plain = generate(model, VARIANTS[name], 5, (2,), steps=6, seed=2)
    made = len(model.seen)
    samples = generate(model, VARIANTS[name], 5, (2,), steps=6, seed=2, path=4)
    assert len(model.seen) == 2 * made, "no further calls"
    assert torch.equal(samples.x, plain.x)
    path = samples.path
    torch.testing.assert_close(path.denoised[-1], samples.x, rtol=0, atol=0)
    assert path.times[-1] == process.t_min
    own = 1 if hasattr(VARIANTS[name], "last_call") and VARIANTS[name].to_zero else 0
    for t, x, denoised in list(zip(path.times, path.x, path.denoised, strict=True))[: 4 - own]:
        torch.testing.assert_close(
            TRANSFORM.decode(model.inner[0](TRANSFORM.encode(x), t)), denoised, atol=1e-9, rtol=0
        )
    if name != "reverse_sde":
        assert path.x.shape == path.denoised.shape == (4, 5, 2)
        assert (path.times.diff() < 0).all()
    if name in ("ancestral", "ddim", "heun", "euler", "ode"):
        grid = make_grid(process, VARIANTS[name].grid, 6)
        assert torch.equal(path.times, grid[[0, 2, 4, 6]])


def test_states_of_a_trajectory_are_those_of_the_loop():
    model, seen = Watched(), {}
    samples = generate(
        model, DDIM(), 4, (2,), steps=5, path=6, callback=lambda step, s, x: seen.update({s.item(): x.clone()})
    )
    for t, x in zip(samples.path.times[1:], samples.path.x[1:], strict=True):
        assert torch.equal(seen[t.item()], x)


@pytest.mark.parametrize(("path", "words"), [(1, "at least 2"), (7, "5 steps has 6 states"), (2.5, "integer")])
def test_bad_path(path, words):
    with pytest.raises(ValueError, match=words):
        generate(Watched(), DDIM(), 2, (2,), steps=5, path=path)


@pytest.mark.parametrize("denoise", [True, False])
def test_a_callback_ends_the_run(denoise):
    model = Watched()
    times = make_grid(model.sde, "log_snr", 8)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    short = sample(model, DDIM(), x, times[:4], denoise=denoise)
    steps = []

    def callback(step, s, state):
        steps.append(step)
        return s == times[3]

    assert torch.equal(sample(model, DDIM(), x, times, denoise=denoise, callback=callback), short)
    assert steps == [0, 1, 2]


def test_early_stops_in_chunks():
    model, shapes = Watched(), []

    def callback(step, s, state):
        shapes.append(tuple(state.shape))
        return step == 2

    samples = generate(model, DDIM(), 5, (2,), steps=8, batch_size=3, callback=callback, path=3, progress=True)
    assert shapes == [(3, 2)] * 3 + [(2, 2)] * 3, "without the rows that fill up a chunk"
    assert (samples.nfe == 4).all()
    assert torch.equal(samples.path.denoised[-1], samples.x)
    shapes.clear()
    with pytest.raises(ValueError, match="every chunk of samples at the same step"):
        generate(model, DDIM(), 6, (2,), steps=8, batch_size=3, path=5, callback=lambda *_: shapes or shapes.append(1))


@pytest.mark.parametrize("sampler", [ODE(solver="RK45"), AnnealedLangevin()])
def test_paths_that_cannot_be_kept_are_refused(sampler):
    model = GaussianMixture(VPSDE(), torch.tensor([[-1.0, 0.5], [1.0, 0.0]]), 0.3)
    if isinstance(sampler, ODE):
        with pytest.raises(ValueError, match="leave path out"):
            generate(model, sampler, 2, (2,), steps=3, path=2)
    else:
        assert len(generate(model, sampler, 2, (2,), steps=3, path=2).path.times) == 2
