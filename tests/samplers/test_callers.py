"""One model for many callers at once: threads, callbacks, modes of modules, torch's modes and defaults, arrays."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from samplers import (
    SAMPLERS,
    AnnealedLangevin,
    Heun,
    SeededNoise,
    decode,
    discrete_bound,
    encode,
    generate,
    likelihood_report,
    log_likelihood,
    plan,
    sample,
    slerp,
    variational_bound,
)
from samplers.calls import evaluating
from samplers.numerics.precision import Switch
from sde import VPSDE, Denoiser, ScoreModel, Transform
from sde.guidance import ClassifierFree, Conditional
from sde.inverse import DPS, Blur, CompressedSensing
from sde.networks import MLP
from sde.process.coefficients import expand
from tests.batteries.networks import build


def small(classes=None, shape=(2,)):
    torch.manual_seed(0)
    network = MLP(shape, classes, width=16, layers=1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return Denoiser(network, VPSDE(), event_shape=shape).eval()


def in_threads(functions, rounds=2):
    """What the functions return, each in a thread of its own, all at once; twice, as luck may spare the first."""
    for _ in range(rounds):
        found, barrier = {}, threading.Barrier(len(functions))

        def run(name, found=found, barrier=barrier):
            barrier.wait()
            found[name] = functions[name]()

        threads = [threading.Thread(target=run, args=(name,)) for name in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return found


def test_threads_share_a_model():
    """Each with its own guidance, conditions, sampler and length, or a likelihood: values and counts as alone."""
    model, x = small(3).train(), torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    model.network.encoder.layers[0].eval()
    modes = [module.training for module in model.modules()]

    def drawn(guided, name, steps):
        def draw():
            found = generate(guided, SAMPLERS[name](), 5, (2,), steps=steps, batch_size=2)
            return found.x, found.nfe

        return draw

    def likelihood():
        found = log_likelihood(Conditional(model, torch.tensor(1)), x, rtol=1e-2, atol=1e-2, probes=2)
        return found.nats, found.nfe

    functions = {
        "guided": drawn(ClassifierFree(model, torch.tensor([0, 1, 2, 1, 0]), 2.0), "ancestral", 9),
        "other": drawn(ClassifierFree(model, torch.tensor(2), 3.0, batched=False), "heun", 6),
        "plain": drawn(Conditional(model, torch.tensor(-1)), "ode", 1),
        "likelihood": likelihood,
    }
    alone = {name: function() for name, function in functions.items()}
    found = in_threads(functions)
    for name, (values, nfe) in alone.items():
        torch.testing.assert_close(found[name][0], values, rtol=0, atol=0)
        assert torch.equal(found[name][1], nfe), name
    assert [module.training for module in model.modules()] == modes


def test_the_last_to_leave_puts_modes_back():
    model = small().train()
    model.network.head.eval()
    first, second = evaluating(model), evaluating(model.network)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert model.training
    assert not any(module.training for module in model.network.modules()), "the second is still there"
    second.__exit__(None, None, None)
    assert model.network.training
    assert not model.network.head.training


def test_the_last_to_leave_puts_a_switch_back():
    class Owner:
        flag = "tf32"

    switch = Switch(Owner, "flag", "ieee")
    first, second = switch.on(), switch.on()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert Owner.flag == "ieee"
    second.__exit__(None, None, None)
    assert Owner.flag == "tf32"


def test_runs_within_a_callback_are_their_own():
    model, inner = small(), []

    def callback(step, s, x):
        inner.append(generate(model, Heun(), 3, (2,), steps=2).nfe.unique().tolist())
        inner.append(log_likelihood(model, x, rtol=0.1, atol=0.1).nfe.min().item() >= 1)
        assert not model.training

    plain = generate(model, Heun(), 4, (2,), steps=5, path=3)
    found = generate(model, Heun(), 4, (2,), steps=5, path=3, callback=callback)
    assert torch.equal(found.x, plain.x)
    assert torch.equal(found.nfe, plain.nfe)
    assert torch.equal(found.path.denoised, plain.path.denoised)
    assert inner == [[5.0], True] * 5


def test_runs_within_a_call_of_the_model_are_their_own():
    """A solver that asks for some rows of the batch, of a model that draws samples of another one at each call."""

    class Asking(ScoreModel):
        with_rows = ("y",)

        def __init__(self):
            super().__init__(VPSDE())
            self.register_buffer("y", torch.tensor([[0.0, 0.0], [30.0, 30.0], [0.0, 1.0]]))
            self.other, self.found = [small()], []

        def forward(self, x, t):
            self.found.append(generate(self.other[0], Heun(), 2, (2,), steps=1).nfe.tolist())
            alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
            gain = expand(alpha / (alpha**2 + 100 * sigma**2), x)
            return self.y + gain * (x - expand(alpha, x) * self.y)

    model = Asking()
    seen = generate(model, SAMPLERS["ode"](rtol=1e-4, atol=1e-4), 3, (2,))
    assert model.found == [[3.0, 3.0]] * len(model.found)
    assert len(seen.nfe.unique()) > 1, "samples leave the solver one by one"
    assert seen.nfe.max() == len(model.found)


RUNS = {
    "generate": lambda m, x: generate(m, Heun(), 3, (2,), steps=3).x,
    "langevin": lambda m, x: generate(m, AnnealedLangevin(), 2, (2,), steps=2).x,
    "reverse_sde": lambda m, x: generate(m, SAMPLERS["reverse_sde"](rtol=0.3, atol=0.3), 1, (2,)).x,
    "brownian": lambda m, x: generate(m, SAMPLERS["ancestral"](), 2, (2,), steps=3, noise="brownian").x,
    "sample": lambda m, x: sample(m, SAMPLERS["dpmpp"](), x, [1.0, 0.5, 1e-3], SeededNoise(range(8))),
    "start": lambda m, x: generate(m, Heun(), 8, (2,), steps=2, start=x, start_time=0.5).x,
    "exact": lambda m, x: log_likelihood(m, x, rtol=0.1, atol=0.1).nats,
    "probed": lambda m, x: log_likelihood(m, x, rtol=0.1, atol=0.1, probes=2, differentiable=True).nats.detach(),
    "encode": lambda m, x: encode(m, x, rtol=0.1, atol=0.1).latent,
    "decode": lambda m, x: decode(m, x, rtol=0.1, atol=0.1).x,
    "variational": lambda m, x: variational_bound(m, x, draws=2).nats,
    "discrete": lambda m, x: discrete_bound(m, x, 5, draws=2).nats,
    "report": lambda m, x: likelihood_report(m, x, rtol=0.1, atol=0.1, bound_draws=2, discrete_steps=20).nats,
    "plan": lambda m, x: plan(m, (2,), 3).times,
    "restore": lambda m, x: generate(restored(m), Heun(), 2, (2,), steps=2).x,
    "operators": lambda m, x: operated(x),
}


def restored(model):
    return DPS(model, CompressedSensing((2,), 1), [[0.3]], 0.1)


def operated(x):
    projection, blur = CompressedSensing((2,), 1), Blur.gaussian(1.0, 1)
    return torch.cat([projection(x), projection.adjoint(projection(x)), blur(x), blur.adjoint(x)], 1)


@pytest.fixture(scope="module")
def expected():
    """A model, items, and what each of RUNS makes of them."""
    model, x = small(), torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
    return model, x, {name: run(model, x) for name, run in RUNS.items()}


def default_dtype(dtype):
    class Default:
        def __enter__(self):
            torch.set_default_dtype(dtype)

        def __exit__(self, *exception):
            torch.set_default_dtype(torch.float32)

    return Default


SURROUNDINGS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "float64": default_dtype(torch.float64),
    "float16": default_dtype(torch.float16),
    "meta": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("around", SURROUNDINGS)
def test_what_is_around_a_run_changes_nothing(around, expected):
    """Also where items are made inside; and training, whose losses and steps are the same bits."""
    model, x, values = expected
    with SURROUNDINGS[around]():
        inside = x if around == "meta" else x + 0
        found = {name: run(model, inside) for name, run in RUNS.items()}
    for name, value in values.items():
        assert found[name].dtype == value.dtype, name
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_arrays_are_taken_as_tensors(expected):
    """Of doubles, in another order of bytes, backwards, and lists of numbers; a float64 array for a float32 model."""
    model, x, values = expected
    array = x.numpy()
    for given in (array, array.astype(">f8"), array[::-1].copy()[::-1], x.tolist()):
        for name in ("sample", "start", "exact", "probed", "encode", "decode", "variational", "discrete", "report"):
            torch.testing.assert_close(RUNS[name](model, given), values[name], rtol=1e-5, atol=1e-5)
    drawn = [
        generate(model, Heun(), 2, (2,), steps=2, seed=seed).x
        for seed in (3, np.int64(3), np.array(3), torch.tensor(3))
    ]
    assert all(torch.equal(part, drawn[0]) for part in drawn)
    drawn = [generate(model, Heun(), 2, (2,), steps=2, seed=seed).x for seed in ([4, 9], np.array([4, 9]))]
    assert torch.equal(*drawn)
    line = [generate(model, Heun(), 2, (2,), grid=kind([1.0, 0.4, 0.01])).x for kind in (list, np.array, torch.tensor)]
    torch.testing.assert_close(line[0], line[1], rtol=0, atol=0)
    torch.testing.assert_close(line[0], line[2])
    torch.testing.assert_close(slerp(array[:2], x[2:4], np.array([0.5])), slerp(x[:2], x[2:4], [0.5]))
    with pytest.raises(TypeError, match="start has type str: needs a tensor or an array of numbers"):
        generate(model, Heun(), 2, (2,), start="x", start_time=0.5)


def test_a_transform_of_levels_takes_arrays_too():
    network = build("mlp", (2,))
    model = Denoiser(network, VPSDE(), transform=Transform.of_levels(4), event_shape=(2,)).eval()
    x = np.array([[0, 3], [1, 2]], dtype=np.uint8)
    found, plain = (encode(model, given, rtol=0.1, atol=0.1).latent for given in (x, torch.from_numpy(x)))
    assert torch.equal(found, plain)
