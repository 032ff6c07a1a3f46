"""The loop and ``generate``: counted calls, chunks, memory, starts, conditions, the noise of a step."""

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch

from samplers import DDIM, SAMPLERS, SeededNoise, generate, sample
from samplers.grid import make_grid
from samplers.planning.fitted import LinearMultistep
from sde import SDE, VPSDE, Denoiser, Transform
from sde.guidance.classifier_free import ClassifierFree
from sde.model.denoiser import PARAMETRIZATIONS
from tests.batteries.variants import VARIANTS
from tests.oracles.by_class import ByClass
from tests.oracles.exact import Gaussian, GaussianMixture
from tests.oracles.processes import PROCESSES
from tests.oracles.watched import MIXTURE, Body, Seeing, Watched


@pytest.mark.parametrize("name", VARIANTS)
def test_calls_are_counted(name):
    model = Watched()
    samples = generate(model, VARIANTS[name], 6, (2,), steps=4, batch_size=3)
    assert samples.mean_nfe == pytest.approx(sum(rows for rows, _ in model.seen) / 6, rel=1e-12)
    assert samples.nfe.shape == (6,)
    if VARIANTS[name].steps > 1:
        assert (samples.nfe == samples.mean_nfe).all()


def test_guidance_counts_two_calls():
    model = ClassifierFree(ByClass(VPSDE()), torch.arange(5) % 3, 2.0)
    assert torch.equal(generate(model, DDIM(), 5, (2,), steps=3, batch_size=2).nfe, torch.full((5,), 8.0).double())


def test_the_last_chunk_has_the_shape_of_the_others():
    network = Seeing()
    model = Denoiser(network, VPSDE(), event_shape=(2,))
    whole = generate(model, SAMPLERS["ancestral"](), 7, (2,), steps=3)
    assert set(network.shapes) == {(7, 2)}
    network.shapes.clear()
    parts = generate(model, SAMPLERS["ancestral"](), 7, (2,), steps=3, batch_size=4, path=2)
    assert set(network.shapes) == {(4, 2)}
    torch.testing.assert_close(parts.x, whole.x)
    assert torch.equal(parts.nfe, whole.nfe)
    assert parts.path.x.shape == (2, 7, 2)


def test_a_compiled_network_is_one_graph_for_the_whole_run():
    compiled = []

    def backend(graph, example_inputs):
        compiled.append(graph)
        return graph.forward

    network = torch.compile(Body(), fullgraph=True, backend=backend)
    model = Denoiser(network, VPSDE(), event_shape=(2,))
    for name in ("ancestral", "heun", "pc"):
        generate(model, SAMPLERS[name](), 7, (2,), steps=3, batch_size=4)
    assert len(compiled) == 1


def test_conditions_stay_with_their_samples():
    """Through chunks that are filled up, starts and numbering: each row with its own label, noise and start."""
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 1])
    start = torch.randn(7, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def draw(rows, size, first):
        model = ClassifierFree(ByClass(VPSDE()), labels[rows], 2.0)
        n = len(labels[rows])
        return generate(
            model, SAMPLERS["ancestral"](), n, (2,), steps=4, start=start[rows], start_time=0.6, batch_size=size,
            first=first, path=3,
        )  # fmt: skip

    whole = draw(slice(0, 7), 7, 0)
    for rows, size in ((slice(0, 7), 2), (slice(0, 3), 2), (slice(3, 7), 4)):
        part = draw(rows, size, rows.start)
        torch.testing.assert_close(part.x, whole.x[rows], rtol=0, atol=1e-12)
        torch.testing.assert_close(part.path.x, whole.path.x[:, rows], rtol=0, atol=1e-12)
        torch.testing.assert_close(part.path.denoised, whole.path.denoised[:, rows], rtol=0, atol=1e-12)
        assert part.seeds == whole.seeds[rows]


@pytest.mark.parametrize("name", ["ancestral", "ode", "dpmpp"])
def test_halves_are_the_whole(name):
    model = Watched()
    whole, low, high = (
        generate(model, SAMPLERS[name](), n, (2,), steps=4, seed=5, first=first)
        for n, first in ((6, 0), (3, 0), (3, 3))
    )
    torch.testing.assert_close(torch.cat([low.x, high.x]), whole.x, rtol=0, atol=1e-12)
    assert torch.equal(torch.cat([low.nfe, high.nfe]), whole.nfe)


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_out_of_memory_halves_the_chunk(limit):
    whole = generate(Watched(), SAMPLERS["ancestral"](), 11, (2,), steps=3)
    model = Watched(limit=limit)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = generate(model, SAMPLERS["ancestral"](), 11, (2,), steps=3)
    assert "out of memory with 11 samples at once: going on with 6" in str(caught[0].message)
    sizes = [11, 6, 3, 2, 1]
    assert len(caught) == next(i for i, size in enumerate(sizes) if size <= limit), "no chunk is tried twice"
    torch.testing.assert_close(samples.x, whole.x, rtol=0, atol=1e-12)
    assert torch.equal(samples.nfe, torch.full((11,), 4.0).double())


@pytest.mark.filterwarnings("ignore:out of memory")
def test_one_sample_must_fit():
    with pytest.raises(torch.OutOfMemoryError):
        generate(Watched(limit=0), SAMPLERS["ancestral"](), 4, (2,), steps=3)


@pytest.mark.parametrize("grid", ["uniform", "log_snr", "karras"])
def test_a_run_from_data_has_the_law_of_its_time(grid, process):
    """From q(x_t | x_0), the exact flow leads to a Gaussian whose moments are known."""
    model = Gaussian(process, torch.tensor([0.4], dtype=torch.float64), 0.5, transform=Transform((3.0,), (10.0,)))
    t = make_grid(process, "log_snr", 4, process.t_signal)[2]
    start = torch.full((3000, 1), 13.0)
    seen = []
    samples = generate(
        model, SAMPLERS["heun"](), 3000, (1,), steps=30, grid=grid, start=start, start_time=t.item(), path=2,
        callback=lambda step, s, x: seen.append(s.item()), batch_size=3000,
    )  # fmt: skip
    assert (len(seen), seen[-1]) == (30, process.t_min)
    assert samples.path.times[0] == t
    # x_t = alpha x_0 + sigma z with x_0 = (13 - 3) / 10, in model units.
    x_t = model.transform.encode(samples.path.x[0])
    z = (x_t - process.alpha(t)) / process.sigma(t)
    assert abs(z.mean().item()) < 0.08
    assert z.std().item() == pytest.approx(1, rel=0.05)
    expected = model(model.flow(x_t, t, make_grid(process, grid, 1)[1]), make_grid(process, grid, 1)[1])
    torch.testing.assert_close(samples.x, model.transform.decode(expected), rtol=0, atol=0.15)


def test_a_state_is_taken_as_it_is():
    """In model units, at the grid's first time, wherever that is: what ``sample`` makes of it."""
    model = Gaussian(VPSDE(), torch.tensor([0.4], dtype=torch.float64), 0.5, transform=Transform((3.0,), (10.0,)))
    state, times = torch.randn(5, 1), torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    for sampler in (SAMPLERS["heun"](), SAMPLERS["ancestral"]()):
        found = generate(model, sampler, 5, (1,), grid=times, start_state=state.numpy(), batch_size=2, seed=3)
        expected = sample(model, sampler, state.double(), times, SeededNoise(found.seeds))
        torch.testing.assert_close(found.x, model.transform.decode(expected))
        torch.testing.assert_close(found.state, expected.to(found.state.dtype))
    named = generate(model, SAMPLERS["heun"](), 5, (1,), steps=3, start_state=state).x
    times = make_grid(model.sde, "karras", 3)
    torch.testing.assert_close(named, model.transform.decode(sample(model, SAMPLERS["heun"](), state.double(), times)))


def test_start_of_quantised_data():
    """Integers stand for the middle of their cells; at the smallest time they come back."""
    model = Gaussian(VPSDE(t_min=1e-5), torch.zeros(3), 1.0, transform=Transform.of_levels(16))
    start = torch.arange(12).view(4, 3)
    samples = generate(model, DDIM(), 4, (3,), steps=2, start=start, start_time=1.2e-5)
    assert torch.equal(samples.x, start.float())


class Noted:
    """Noise of steps: what ``between`` returns knows its ends."""

    def __init__(self):
        self.asked = []

    def __call__(self, x):
        raise AssertionError("the loop asks for the noise of the step")

    def between(self, t, s):
        self.asked.append((t.item(), s.item()))
        return torch.zeros_like


def test_noise_of_a_step():
    noise, times = Noted(), make_grid(VPSDE(), "uniform", 4)
    model = Watched()
    x = torch.ones(2, 2, dtype=torch.float64)
    out = sample(model, SAMPLERS["ancestral"](), x, times, noise)
    assert noise.asked == list(pairwise(times.tolist()))
    assert torch.equal(out, sample(model, SAMPLERS["ancestral"](), x, times, torch.zeros_like))


NAMES = ("log_alpha", "alpha", "sigma", "log_snr", "noise_level", "f", "g2")


def test_levels_are_the_formulas(process):
    """At the times of a run, known together, at others, at (B,) times, and where a time is differentiated."""
    times = make_grid(process, "log_snr", 5)
    points = process.points(times)
    between = 0.5 * (points[0] + points[1])
    for t in (*points, points[1] * 1, between, times, times.float(), between.clone().requires_grad_()):
        at = process.level(t)
        for name in NAMES:
            found, expected = getattr(at, name), getattr(process, name)(t)
            assert isinstance(found, float) == (t.ndim == 0 and not t.requires_grad)
            torch.testing.assert_close(torch.as_tensor(found, dtype=t.dtype), expected, rtol=1e-12, atol=1e-15)


def test_levels_keep_the_derivatives_of_their_time(process):
    """By autograd, forward mode and functorch's transforms, of the grid's own times too."""
    t = process.points(make_grid(process, "log_snr", 5))[2]
    model, x = Denoiser(Body().double(), process), torch.ones(3, 2, dtype=torch.float64)
    one = torch.ones_like(t)
    step = 1e-6
    with torch.no_grad():
        expected = (model(x, t + step) - model(x, t - step)) / (2 * step)
    found = torch.func.jvp(lambda t: model(x, t), (t,), (one,))[1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with torch.autograd.forward_ad.dual_level():
        dual = model(x, torch.autograd.forward_ad.make_dual(t, one))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, found)
    leaf = t.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x, leaf).sum(), leaf)
    torch.testing.assert_close(slope, found.sum())
    mapped = torch.func.vmap(lambda t: process.level(t).sigma)(torch.stack([t, t]))
    assert torch.equal(mapped, process.sigma(torch.stack([t, t])))


class Own(SDE):
    """Two formulas and a number that may change, in an object that cannot be hashed."""

    __hash__ = None
    t_max = 0.99

    def __init__(self, scale=1.0):
        self.scale = scale
        super().__init__()

    def log_alpha(self, t):
        return torch.log1p(-t)

    def sigma(self, t):
        return self.scale * t


def test_a_process_that_changes_between_runs():
    sde, seen = Own(), []
    model = GaussianMixture(sde, MIXTURE, 0.2)
    for scale in (1.0, 2.0):
        sde.scale = scale
        fresh = GaussianMixture(Own(scale), MIXTURE, 0.2)
        times = make_grid(sde, "log_snr", 4)
        for name in ("ancestral", "euler", "deis"):
            found, expected = (sample(m, SAMPLERS[name](), torch.ones(2, 2).double(), times, SeededNoise([1, 2]),
                                      callback=lambda *_: seen.append(model.sde is sde))
                               for m in (model, fresh))  # fmt: skip
            assert torch.equal(found, expected)
    assert all(seen), "the model is the user's own, inside a run as well"


def test_one_model_serves_several_runs_at_once():
    """In threads, each run's samples and counted calls are as if it were alone; so they are of a run within a run."""
    model = ClassifierFree(ByClass(VPSDE()), torch.tensor(1), 2.0)
    runs = {
        name: lambda name=name: generate(model, SAMPLERS[name](), 3, (2,), steps=20, seed=4)
        for name in ("heun", "ancestral", "deis", "euler", "ode")
    }
    alone = {name: run() for name, run in runs.items()}
    with ThreadPoolExecutor(5) as pool:
        together = {name: pool.submit(run) for name, run in runs.items()}
    for name, found in together.items():
        assert torch.equal(found.result().x, alone[name].x)
        assert torch.equal(found.result().nfe, alone[name].nfe)
    inner = []
    generate(model, DDIM(), 2, (2,), steps=2, callback=lambda *_: inner.append(runs["heun"]()))
    assert torch.equal(inner[0].x, alone["heun"].x)
    assert torch.equal(inner[0].nfe, alone["heun"].nfe)


@pytest.mark.parametrize(
    ("sde", "parametrization"),
    # Each process, and each parametrization.
    [(name, "edm") for name in PROCESSES] + [("straight", name) for name in PARAMETRIZATIONS if name != "edm"],
)
def test_the_loop_is_its_steps(sde, parametrization):
    """What a run remembers changes nothing: the same steps by hand, each value computed where it is needed."""
    torch.manual_seed(0)
    model = Denoiser(Body().double(), PROCESSES[sde], parametrization)
    times = make_grid(model.sde, "karras", 5)
    x = torch.randn(3, 2, dtype=torch.float64) * model.sde.prior_std()
    for name, sampler in VARIANTS.items():
        if name in ("ode", "reverse_sde"):
            continue
        noise, carry, state = SeededNoise([1, 2, 3]), None, x
        with torch.no_grad():
            for t, s in pairwise(times):
                if model.sde.alpha(t) == 0 and not getattr(sampler, "from_open_end", False):
                    # x = sigma_t z, and D is the mean of the data: alpha_s D + sigma_s z, whatever the sampler.
                    state = model.sde.alpha(s) * model(state, t) + model.sde.sigma(s) / model.sde.sigma(t) * state
                else:
                    state, carry = sampler.step(model, state, t, s, noise, carry)
            own = getattr(sampler, "last_call", None)
            state = model(state, times[-1]) if own is None else own(model, state, times[-1], noise, carry)
        out = sample(model, sampler, x, times, SeededNoise([1, 2, 3]))
        torch.testing.assert_close(out, state, rtol=1e-8, atol=1e-8)


def test_modes_of_modules_are_kept():
    model = GaussianMixture(VPSDE(), MIXTURE, 0.2)
    model.inner = torch.nn.Dropout().eval()
    model.train(True)
    model.inner.eval()
    generate(model, SAMPLERS["ddim"](), 2, (2,), steps=2)
    assert (model.training, model.inner.training) == (True, False)


def test_a_model_copied_inside_a_run_is_whole():
    model = GaussianMixture(VPSDE(), torch.tensor([[-1.0, 0.5], [1.0, 0.0]]), 0.3)
    copies = []
    times = make_grid(model.sde, "log_snr", 6)
    sample(model, SAMPLERS["euler"](), torch.ones(2, 2), times, callback=lambda *_: copies.append(copy.deepcopy(model)))
    t = torch.linspace(0.01, 1, 500, dtype=torch.float64)
    for inside in copies:
        for u in t:
            assert inside.sde.sigma(u) == VPSDE().sigma(u)


class OneTime(VPSDE):
    """Takes one time alone, and has a constant that is no function of the time's shape."""

    def log_alpha(self, t):
        return super().log_alpha(t) if t.ndim or t > 0 else t

    def g2(self, t):
        return torch.tensor(1.5, dtype=torch.float64)


def test_processes_that_cannot_be_tabulated_still_run():
    means = torch.tensor([[-1.0, 0.5], [1.0, 0.0]])
    found = [
        generate(GaussianMixture(sde(), means, 0.3), SAMPLERS["ddim"](), 3, (2,), steps=4).x for sde in (VPSDE, OneTime)
    ]
    torch.testing.assert_close(*found)
    assert generate(GaussianMixture(OneTime(), means, 0.3), SAMPLERS["euler"](), 3, (2,), steps=4).x.isfinite().all()


@pytest.mark.parametrize(
    ("process", "late"), [("vp", 0.7), ("vp", 0.9), ("vp", 0.5), ("ve", 0.8), ("subvp", 0.9), ("straight", 0.9)],
    indirect=["process"],
)  # fmt: skip
def test_pure_noise_is_not_drawn_where_x_is_more(process, late):
    """By a grid of one's own, and by a sampler that brings one, as a plan's does."""
    model, line = Gaussian(process, torch.tensor([0.3, 0.5]), 0.5), torch.linspace(late, 0, 6, dtype=torch.float64)
    times = process.t_min + (process.t_max - process.t_min) * line
    words = r"grid: it starts at t = .* and alpha / sigma = .*, where x is not pure noise; .* `start` and `start_time`"
    fitted = LinearMultistep(tuple(times.tolist()), tuple((0.0,) * min(i + 1, 8) for i in range(5)))
    for sampler, grid in ((SAMPLERS["heun"](), times), (SAMPLERS["heun"](), times.tolist()), (fitted, None)):
        with pytest.raises(ValueError, match=words):
            generate(model, sampler, 2, (2,), grid=grid)
    start = torch.zeros(2, 2, dtype=torch.float64)
    assert generate(model, SAMPLERS["heun"](), 2, (2,), grid=times, start=start, start_time=times[0].item()).x.shape
    near = torch.tensor([process.t_max - 1e-3 * (process.t_max - process.t_min), process.t_min])
    assert generate(model, SAMPLERS["heun"](), 2, (2,), grid=near).x.shape
