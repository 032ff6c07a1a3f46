"""Compiled networks: the same samples, graphs counted, and the model as it was behind the run."""

import pytest
import torch

import samplers.compiled
from samplers import SAMPLERS, compiled, decode, encode, generate, log_likelihood
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
    yield
    torch._dynamo.reset()


def denoiser(kind="mlp", seed=0):
    torch.manual_seed(seed)
    network = NETWORKS[kind](SHAPE, 10, **NETWORK_OPTIONS[kind])
    for parameter in network.parameters():
        parameter.data.copy_(0.2 * torch.randn_like(parameter))
    return Denoiser(network, VPSDE(), event_shape=SHAPE)


def both(model, sampler, n=7, **options):
    """The graphs of a run in chunks of 4, whose samples are those of an eager run."""
    counting = Counting()
    plain = generate(model, sampler, n, SHAPE, batch_size=4, **options)
    with compiled(model, backend=counting):
        found = generate(model, sampler, n, SHAPE, batch_size=4, **options)
    torch.testing.assert_close(found.x, plain.x, rtol=0, atol=1e-5)
    assert torch.equal(found.nfe, plain.nfe)
    return counting.graphs


@pytest.mark.parametrize("kind", NETWORK_OPTIONS)
@pytest.mark.parametrize("name", ["heun", "ode"])
def test_a_run_is_one_graph(kind, name):
    options = {"rtol": 1e-2, "atol": 1e-2} if name == "ode" else {}
    assert both(denoiser(kind), SAMPLERS[name](**options), steps=1 if options else 3) == 1
