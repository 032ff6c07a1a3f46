"""Compiled networks: the same samples, graphs counted, and the model as it was behind the run."""

import pytest
import torch

from samplers import SAMPLERS, SCORE_SAMPLERS, compiled, decode, encode, generate, log_likelihood
from samplers.compiled import CompiledBody, is_compiled, lacking
from sde import VPSDE, Denoiser
from sde.guidance import Autoguidance, ClassifierFree, Conditional, GuidanceInterval, GuidanceRescale
from sde.inverse import Mask
from sde.inverse.posterior import DPS, Replacement
from sde.networks import NETWORKS
from tests.batteries.variants import VARIANTS
from tests.oracles.exact import Gaussian

LABELS = torch.arange(7) % 10
SHAPE = (1, 4, 4)
NETWORK_OPTIONS = {
    "mlp": {"width": 8, "layers": 1},
    "unet": {"channels": 8, "num_res_blocks": 1, "channel_mult": (1, 2), "attention_resolutions": (2,)},
    "dit": {"width": 16, "depth": 1, "heads": 2, "patch_size": 2},
}


class Counting:
    """A backend that runs graphs as they are, and counts them."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, example_inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def denoiser(kind="mlp", seed=0):
    torch.manual_seed(seed)
    network = NETWORKS[kind](SHAPE, 10, **NETWORK_OPTIONS[kind])
    for parameter in network.parameters():
        parameter.data.copy_(0.2 * torch.randn_like(parameter))
    return Denoiser(network, VPSDE(), event_shape=SHAPE)


def both(model, sampler, n=7, counting=None, **options):
    """The graphs of a run in chunks of 4, whose samples are those of an eager run."""
    counting = counting or Counting()
    plain = generate(model, sampler, n, SHAPE, batch_size=4, **options)
    with compiled(model, backend=counting):
        found = generate(model, sampler, n, SHAPE, batch_size=4, **options)
    torch.testing.assert_close(found.x, plain.x, rtol=0, atol=1e-5)
    assert torch.equal(found.nfe, plain.nfe)
    return counting.graphs


@pytest.mark.parametrize("kind", NETWORK_OPTIONS)
def test_runs_are_one_graph(kind):
    """Of fixed steps, and of adaptive ones, of which samples come to their end at different times."""
    model, counting = denoiser(kind), Counting()
    assert both(model, SAMPLERS["heun"](), counting=counting, steps=2) == 1
    assert both(model, SAMPLERS["ode"](rtol=0.1, atol=0.1), counting=counting) == 1


def test_guided_runs_are_one_graph():
    """Of methods that only call the models inside; what has no classes is a second one."""
    model, counting = denoiser(), Counting()
    free = ClassifierFree(model, LABELS, 2.0)
    half = Mask(torch.arange(16).view(SHAPE) < 8, SHAPE)
    for guided in (Conditional(model, LABELS), free, ClassifierFree(model, LABELS, 2.0, batched=False),
                   GuidanceInterval(free, 0.3, 3.0), GuidanceRescale(free, 0.7)):  # fmt: skip
        assert both(guided, SAMPLERS["heun"](), counting=counting, steps=3) == 1
    assert both(Replacement(model, half, torch.zeros(7, 8)), SAMPLERS["heun"](), counting=counting, steps=3) == 2


def test_every_network_inside_is_compiled_and_told_apart():
    """Two networks of one kind may share a graph that takes weights as arguments; each keeps its own."""
    model = Autoguidance(denoiser(), denoiser(seed=1), 2.0)
    assert 1 <= both(model, SAMPLERS["ddim"](), steps=3) <= 2
    with compiled(model, backend=Counting()):
        assert all(map(is_compiled, (model.model.network, model.weak.network)))


def test_runs_of_every_sampler_are_one_graph_together():
    model, counting = denoiser(), Counting()
    for name in SCORE_SAMPLERS:
        sampler = VARIANTS[name]
        options = {"batch_size": 3, "steps": 3 if sampler.steps > 1 else None}
        plain = generate(model, sampler, 5, SHAPE, **options)
        with compiled(model, backend=counting):
            found = generate(model, sampler, 5, SHAPE, **options)
        torch.testing.assert_close(found.x, plain.x, rtol=0, atol=1e-5)
    # The adaptive reverse SDE asks for one row from the beginning, which torch gives a graph of its own.
    assert counting.graphs == 2


def test_padded_items_are_one_graph():
    assert both(denoiser(), SAMPLERS["ancestral"](), steps=3, sizes=[2, 3, 4, 4, 1, 2, 3]) == 1


def test_one_row_after_several_is_no_graph_of_its_own():
    model, counting = denoiser(), Counting()
    x, t = torch.randn(3, *SHAPE), torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad(), compiled(model, backend=counting):
        for rows in (3, 1, 2):
            torch.testing.assert_close(model(x[:rows], t), model(x, t)[:rows])
            # A time for each row is one for all.
            torch.testing.assert_close(model(x[:rows], t.expand(rows)), model(x, t)[:rows])
    assert counting.graphs == 1


def test_to_compile_again_compiles_nothing():
    model, counting = denoiser(), Counting()
    for _ in range(3):
        with compiled(model, backend=counting):
            generate(model, SAMPLERS["ddim"](), 4, SHAPE, steps=2)
    assert counting.graphs == 1


def test_latents_are_the_same():
    model, x = denoiser(), torch.randn(5, *SHAPE)
    plain = encode(model, x, rtol=1e-3, atol=1e-3)
    counting = Counting()
    with compiled(model, varying=True, backend=counting):
        found = encode(model, x, rtol=1e-3, atol=1e-3)
        again = decode(model, found.latent, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.latent, plain.latent)
    torch.testing.assert_close(again.x, decode(model, plain.latent, rtol=1e-3, atol=1e-3).x)
    assert counting.graphs == 1


def test_what_is_differentiated_is_asked_as_it_was():
    model, x, counting = denoiser(), torch.randn(2, *SHAPE), Counting()
    posterior = DPS(model, Mask(torch.arange(16).view(SHAPE) < 8, SHAPE), torch.zeros(2, 8))
    plain = log_likelihood(model, x, probes=2, rtol=1e-2, atol=1e-2).nats
    drawn = generate(posterior, SAMPLERS["ddim"](), 2, SHAPE, steps=2).x
    with compiled(model, backend=counting):
        assert torch.equal(log_likelihood(model, x, probes=2, rtol=1e-2, atol=1e-2).nats, plain)
        assert torch.equal(generate(posterior, SAMPLERS["ddim"](), 2, SHAPE, steps=2).x, drawn)
    # The last call alone is not differentiated.
    assert counting.graphs <= 1


def test_a_model_is_as_before_behind_the_block():
    model = denoiser()
    names, inside = list(model.state_dict()), []

    def failing():
        with compiled(model, backend=Counting()):
            inside.append(list(model.state_dict()))
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert not is_compiled(model.network)
    assert [list(model.state_dict())] == inside == [names]


@pytest.mark.parametrize("in_place", [True, False])
def test_what_somebody_else_has_compiled_stays_theirs(in_place):
    model, theirs, ours = denoiser(), Counting(), Counting()
    if in_place:
        model.network.compile(backend=theirs)
    else:
        model.network = torch.compile(model.network, backend=theirs)
    held = model.network, model.network._compiled_call_impl
    with compiled(model, backend=ours):
        generate(model, SAMPLERS["ddim"](), 4, SHAPE, steps=2)
    assert (theirs.graphs, ours.graphs) == (1, 0)
    assert held == (model.network, model.network._compiled_call_impl)


def test_a_captured_call_keeps_what_it_returned():
    """As a captured graph writes over what it returned: here a backend that has one place for all of its outputs."""
    model, counting = denoiser(), Counting()
    held = {}

    def backend(graph, example_inputs):
        counting(graph, example_inputs)

        def replay(*inputs):
            found = graph.forward(*inputs)
            return tuple(held.setdefault((i, o.shape), torch.empty_like(o)).copy_(o) for i, o in enumerate(found))

        return replay

    x, c_noise = torch.randn(4, *SHAPE), torch.zeros(4)
    with torch.no_grad():
        call = CompiledBody(model.network, captured=True, backend=backend)
        first, second = call(x, c_noise, None), call(2 * x, c_noise, None)
        torch.testing.assert_close(first, model.network(x, c_noise, None))
        torch.testing.assert_close(second, model.network(2 * x, c_noise, None))
        call(x[:2], c_noise[:2], None)
    # Of a captured graph every number of rows is one of its own.
    assert counting.graphs == 2


def test_by_torchs_compiler():
    model = denoiser()
    plain = generate(model, SAMPLERS["heun"](), 7, SHAPE, steps=3, batch_size=4)
    if lack := lacking(torch.device("cpu")):
        pytest.skip(lack)
    found = generate(model, SAMPLERS["heun"](), 7, SHAPE, steps=3, batch_size=4, compile=True)
    torch.testing.assert_close(found.x, plain.x, rtol=0, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not is_compiled(model.network)


def test_a_model_without_a_network_is_refused():
    with pytest.raises(ValueError, match="Gaussian names no network to be compiled; leave it out"):
        generate(Gaussian(VPSDE(), torch.zeros(2), torch.eye(2)), SAMPLERS["ddim"](), 2, (2,), compile=True)


def test_without_a_compiler_the_sentence_says_so(monkeypatch):
    def nothing():
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", nothing)
    with pytest.raises(ValueError, match=r"^compile: needs a C\+\+ compiler, .* and there is none: install it"):
        generate(denoiser(), SAMPLERS["ddim"](), 2, SHAPE, compile=True)


def test_a_network_that_cannot_be_compiled_is_named():
    def backend(graph, example_inputs):
        raise NotImplementedError("this operation")

    model = denoiser()
    with (
        pytest.raises(ValueError, match=r"torch cannot compile MLP \(.*this operation.*\); leave `compile` out"),
        compiled(model, backend=backend),
    ):
        generate(model, SAMPLERS["ddim"](), 2, SHAPE)


def test_what_the_network_itself_refuses_is_told_in_its_own_words():
    model = denoiser()
    with pytest.raises(IndexError) as plain, torch.no_grad():
        model(torch.randn(2, *SHAPE), torch.tensor(0.5), torch.tensor([0, 99]))
    with pytest.raises(IndexError) as found, torch.no_grad(), compiled(model, backend=Counting()):
        model(torch.randn(2, *SHAPE), torch.tensor(0.5), torch.tensor([0, 99]))
    assert str(found.value) == str(plain.value)
