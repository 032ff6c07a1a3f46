"""Every computation on a simulated device: as on the CPU bit for bit, nothing misplaced, and the CPU hardly waits."""

import copy

import pytest
import torch

from samplers import (
    SAMPLERS,
    discrete_bound,
    encode,
    generate,
    likelihood_report,
    log_likelihood,
    plan,
    variational_bound,
)
from samplers.encode import decode
from sde import VPSDE, Denoiser, NoisyClassifier
from sde.guidance import (
    Autoguidance,
    Classifier,
    ClassifierFree,
    Conditional,
    DynamicThreshold,
    GuidanceInterval,
    GuidanceRescale,
    StaticThreshold,
)
from sde.inverse import Mask
from sde.inverse.posterior import DPS, MMPS, PiGDM, Replacement
from sde.networks import MLP
from sde.networks.classifier import MLPClassifier
from tests.batteries.tiers import ADAPTIVE
from tests.oracles import simulated_device as sim
from tests.sde import small_training

pytestmark = pytest.mark.skipif(not sim.available, reason="this torch has no interface for devices written in Python")
LABELS = torch.arange(4) % 3


def small(seed=0):
    """A denoiser of points in three dimensions, with random weights."""
    torch.manual_seed(seed)
    model = Denoiser(MLP((3,), 3, width=8, layers=1), VPSDE(), event_shape=(3,))
    for parameter in model.parameters():
        parameter.data.copy_(0.3 * torch.randn_like(parameter))
    return model.eval()


def on_both(model, function):
    """function(model, device) here and there, what it returned as tensors on the CPU, and what was seen there."""
    here = function(model, torch.device("cpu"))
    with sim.watching() as seen:
        there = function(copy.deepcopy(model).to(sim.NAME), torch.device(sim.NAME))
    return here, there, seen


def same(here, there):
    assert torch.equal(here, there.cpu()), (here - there.cpu()).abs().max()


def close(here, there):
    """To a few roundings: in what order gradients are added up is no matter of the device's values."""
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers(name):
    steps = {} if name in ADAPTIVE else {"steps": 5}
    sampler = SAMPLERS[name](**({"rtol": 0.1, "atol": 0.1} if name in ADAPTIVE else {}))
    kept = {}

    def draw(model, device):
        kept[device.type] = generate(ClassifierFree(model, LABELS, 2.0), sampler, 4, (3,), seed=3, **steps)
        return kept[device.type].x

    here, there, seen = on_both(small(), draw)
    same(here, there)
    # An adaptive solver looks at errors: ``ode`` once a step of the whole batch, ``reverse_sde`` at every call.
    looks = 0 if steps else kept[sim.NAME].nfe.sum().item() / (1 if name == "reverse_sde" else 6)
    assert len(seen.waits) <= 3 + looks, seen.waits


def judge(like):
    classifier = NoisyClassifier(MLPClassifier((3,), 3, 8, 1), VPSDE()).eval()
    generator = torch.Generator().manual_seed(2)
    for parameter in classifier.parameters():
        parameter.data.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return classifier.to(like.device)


def measured(model, method, *options):
    like = next(model.parameters())
    operator = Mask(torch.tensor([True, False, True]), (3,)).to(like.device)
    return method(model, operator, torch.ones(4, 2, device=like.device), *options)


GUIDED = {
    "conditional": lambda m, y: Conditional(m, y),
    "classifier_free": lambda m, y: ClassifierFree(m, y, 2.0),
    "negative": lambda m, y: ClassifierFree(m, y, 2.0, y.flip(0)),
    "classifier": lambda m, y: Classifier(m, judge(y), y, 1.5),
    "classifier of the denoised": lambda m, y: Classifier(m, judge(y), y, 1.5, "denoised"),
    "autoguidance": lambda m, y: Autoguidance(m, small(seed=1).to(y.device), 1.5),
    "interval": lambda m, y: GuidanceInterval(ClassifierFree(m, y, 2.0), 0.1, 5.0),
    "rescale": lambda m, y: GuidanceRescale(ClassifierFree(m, y, 2.0), 0.7),
    "threshold": lambda m, y: DynamicThreshold(ClassifierFree(m, y, 2.0), 0.9, -2.0, 2.0),
    "static threshold": lambda m, y: StaticThreshold(ClassifierFree(m, y, 2.0), -2.0, 2.0),
    "replacement": lambda m, y: measured(m, Replacement),
    "dps": lambda m, y: measured(m, DPS, 0.1),
    "pigdm": lambda m, y: measured(m, PiGDM, 0.1),
    "mmps": lambda m, y: measured(m, MMPS, 0.1),
}


@pytest.mark.parametrize("name", GUIDED)
def test_guidance(name):
    """Conditions and measurements that lie on the device, in chunks, of which the second is filled up."""

    def draw(model, device):
        bound = GUIDED[name](model, LABELS.to(device))
        return generate(bound, SAMPLERS["dpmpp"](), 4, (3,), seed=3, steps=4, batch_size=3).x

    here, there, seen = on_both(small(), draw)
    close(here, there)
    # Two chunks; binding looks at the labels once.
    assert len([line for line in seen.waits if "samplers/" in line or "sde/inverse" in line]) <= 6, seen.waits


X = torch.linspace(-1, 1, 12).view(4, 3)
COMPUTED = {
    "likelihood": lambda m, x: log_likelihood(m, x, rtol=1e-3, atol=1e-3).nats,
    "probed likelihood": lambda m, x: log_likelihood(m, x, rtol=1e-3, atol=1e-3, probes=2).nats,
    "report": lambda m, x: likelihood_report(m, x, rtol=0.1, atol=0.1, bound_draws=2, discrete_steps=20).ode.mean,
    "bound": lambda m, x: variational_bound(m, x, draws=4).nats,
    "discrete bound": lambda m, x: discrete_bound(m, x, 8, draws=4).nats,
    "encode": lambda m, x: encode(m, x, rtol=1e-3, atol=1e-3).latent,
    "decode": lambda m, x: decode(m, x, rtol=1e-3, atol=1e-3).x,
    "plan": lambda m, x: plan(m, (3,), 5).times,
}


@pytest.mark.parametrize("name", COMPUTED)
def test_computations(name):
    here, there, _ = on_both(small(), lambda model, device: torch.as_tensor(COMPUTED[name](model, X.to(device))))
    close([here], [there])


def test_training():
    """Steps, a state, a run that goes on from it; nothing is read back in a step."""
    runs = {}
    for device in ("cpu", sim.NAME):

        def trainer(device=device):
            options = {"dropout": 0.0, "gradient_accumulation": 2, "max_grad_norm": 1.0}
            return small_training.trainer(device=device, **options)

        first = trainer()
        first.training_step()
        with sim.watching() as seen:
            losses = [first.training_step().loss for _ in range(3)]
        assert not seen.waits, seen.waits
        second = trainer()
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        losses += [run.training_step().loss for run in (first, second)]
        assert torch.equal(losses[-1], losses[-2])
        runs[device] = [*losses, *second.module.state_dict().values()]
    close(*runs.values())
