"""Every computation on a simulated device: as on the CPU bit for bit, nothing misplaced, and the CPU hardly waits."""

import copy
from contextlib import nullcontext

import pytest
import torch

from samplers import (
    FLOW_MAP_SAMPLERS,
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
from sde import VPSDE, Denoiser
from sde.data import Dataset
from sde.data.transform import Transform
from sde.device import placed
from sde.distillation import FlowMap
from sde.distributed.world import World
from sde.guidance import ClassifierFree, DynamicThreshold
from sde.networks import MLP
from sde.training.augmentation import AUGMENTATIONS, Augmentation
from sde.training.batches import Batches
from sde.training.copies import tensors
from sde.training.options import TrainingOptions
from tests.batteries.tiers import ADAPTIVE
from tests.oracles import simulated_device as sim
from tests.oracles.guidances import GUIDED
from tests.sde import small_training

pytestmark = pytest.mark.skipif(not sim.available, reason="this torch has no interface for devices written in Python")
LABELS = torch.arange(4) % 3


@pytest.fixture(params=[True, False], ids=["float64", "no float64"])
def widths(request):
    """A device that has float64, and one that does not."""
    with nullcontext() if request.param else sim.without_float64():
        yield


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
@sim.without_float64()
def test_samplers(name):
    steps = {} if name in ADAPTIVE else {"steps": 5}
    tolerance = 0.5 if name == "reverse_sde" else 0.1
    sampler = SAMPLERS[name](**dict.fromkeys(getattr(SAMPLERS[name], "tolerances", ()), tolerance))
    kept = {}

    def draw(model, device):
        if name in FLOW_MAP_SAMPLERS:
            guided = FlowMap.of(model, (1, 4)).bound(LABELS, 2.0)
        else:
            guided = ClassifierFree(model, LABELS, 2.0)
        kept[device.type] = generate(guided, sampler, 4, (3,), seed=3, **steps)
        return kept[device.type].x

    here, there, seen = on_both(small(), draw)
    same(here, there)
    # An adaptive solver looks at errors: ``ode`` and ``adams`` once a step of the whole batch, ``reverse_sde`` at
    # every call.
    nfe = kept[sim.NAME].nfe
    # Guidance takes two calls at a time.
    looks = 0 if steps else {"ode": nfe.sum() / 6, "reverse_sde": nfe.sum(), "adams": nfe.max() / 2}[name].item()
    assert len(seen.waits) <= 3 + looks, seen.waits


@pytest.mark.parametrize("name", GUIDED)
def test_guidance(name):
    """Conditions and measurements that lie on the device, in chunks, of which the second is filled up."""

    bound_after = []

    def draw(model, device):
        bound = GUIDED[name](model, LABELS.to(device))
        bound_after.append(len(sim.seen.waits))
        return generate(bound, SAMPLERS["dpmpp"](), 4, (3,), seed=3, steps=4, batch_size=3).x

    here, there, seen = on_both(small(), draw)
    close(here, there)
    # Each chunk is looked at and fetched; what is bound was looked at before.
    assert len(seen.waits) - bound_after[-1] == 2 * 2, seen.waits
    assert bound_after[-1] <= 4, seen.waits


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
WAITS = {"likelihood": 12, "probed likelihood": 12, "report": 40, "bound": 3, "discrete bound": 3, "encode": 12,
         "decode": 12, "plan": 48}  # fmt: skip
"""The most: one for each step of a solver, of which there are nine or ten, a look at what is given, and the results.
A plan waits for each of its five steps on five grids, for all states of its pilots at once, and for looks at its six
runs and their ends."""


@pytest.mark.usefixtures("widths")
@pytest.mark.parametrize("name", COMPUTED)
def test_computations(name):
    here, there, seen = on_both(small(), lambda model, device: torch.as_tensor(COMPUTED[name](model, X.to(device))))
    close([here], [there])
    assert len(seen.waits) <= WAITS[name], seen.waits


@pytest.mark.usefixtures("widths")
@pytest.mark.parametrize("uncertain", [False, True])
def test_training(uncertain):
    """Steps, a state, a run that goes on from it; nothing is read back in a step."""
    runs = {}
    for device in ("cpu", sim.NAME):

        def trainer(device=device):
            options = {"dropout": 0.0, "gradient_accumulation": 2, "max_grad_norm": 1.0}
            return small_training.trainer(device=device, uncertain=uncertain, **options)

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


@pytest.mark.usefixtures("widths")
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation(name):
    """Nothing is read back of the items, nor of what is done to them."""
    images, seeds, found = torch.rand(6, 2, 8, 8), torch.arange(6), {}
    for device in ("cpu", sim.NAME):
        x, cond = images.to(device), {"labels": torch.arange(6).to(device)}
        with sim.watching() as seen:
            found[device] = Augmentation(name, 0.7, augment_dim=9)(x, cond, seeds)
        assert not seen.waits, seen.waits
    (here, told), (there, also) = found.values()
    assert there.device.type == also["augmentation"].device.type == sim.NAME
    close([here, told["augmentation"]], [there, also["augmentation"]])


FAR = Transform((1e9,), (2.0,))
"""Of data so far from zero that they need float64."""
X_FAR = FAR.decode(X)
FAR_COMPUTED = {
    "likelihood": COMPUTED["likelihood"],
    "bound": COMPUTED["bound"],
    "encode": COMPUTED["encode"],
    "decode": lambda m, x: decode(m, FAR.encode(x), rtol=1e-3, atol=1e-3).x,
    "generate": lambda m, x: generate(m, SAMPLERS["dpmpp"](), 4, (3,), seed=3, steps=4).x,
    "threshold": lambda m, x: generate(DynamicThreshold(m, 0.9, 1e9 - 4, 1e9 + 4), SAMPLERS["ddim"](), 4, (3,), seed=3,
                                       steps=4).x,
}  # fmt: skip


@pytest.mark.usefixtures("widths")
@pytest.mark.parametrize("name", FAR_COMPUTED)
def test_data_far_from_zero(name):
    """They stay on the CPU where the device has no float64."""
    model = small()
    model.transform = FAR
    here, there, _ = on_both(
        model, lambda model, device: torch.as_tensor(FAR_COMPUTED[name](model, placed(X_FAR, device)))
    )
    assert here.dtype == there.dtype
    torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-5 if here.abs().max() < 1e6 else 1e-3)


@pytest.mark.usefixtures("widths")
def test_input_far_from_zero_is_augmented():
    """Encoded where there is float64, and augmented on the device, with what the network is told of it."""
    images = FAR.decode(torch.rand(12, 2, 8, 8, generator=torch.Generator().manual_seed(0)))
    data, found = Dataset(images, None, None, FAR), []
    for where in ("cpu", sim.NAME):
        options, how = TrainingOptions(steps=2, batch_size=12), Augmentation("edm", 0.7, augment_dim=9)
        x0, cond, _ = Batches(data, VPSDE(), options, World(), torch.device(where), augmentation=how).get(0)
        assert x0.device.type == cond["augmentation"].device.type == where
        assert cond["augmentation"].cpu().any(1).sum() > 6
        found.append([x0, cond["augmentation"]])
    close(*found)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("levels", [None, 16])
def test_input(workers, levels):
    """What data that stay on the device spare: all of a batch but where its items are, and its random numbers."""
    items = torch.arange(40 * 6).view(40, 6) % 16
    data = Dataset(items if levels else items.float(), torch.arange(40) % 2, 2, Transform(num_levels=levels))
    batches, sent = {}, {}
    for where, share in (("cpu", 1.0), (sim.NAME, 1.0), (sim.NAME, 0.0)):
        device = torch.device(where)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sde.data.dataset.RESIDENT_BYTES", int(share * 2**30))
            options = TrainingOptions(steps=6, batch_size=8)
            read = Batches(data, VPSDE(), options, World(), device, workers)
        assert read.resident is (share == 1.0)
        with sim.watching() as seen:
            found = [read.get(number) for number in range(4)]
        read.close()
        assert not seen.waits, seen.waits
        assert {part.device.type for part in tensors(tuple((x, c, d.z) for x, c, d in found))} == {where}
        batches[where, share] = [[part.cpu() for part in tensors(tuple(batch))] for batch in found]
        sent[where, share] = seen.sent
    cpu, *others = batches.values()
    for other in others:
        assert all(torch.equal(a, b) for x, y in zip(cpu, other, strict=True) for a, b in zip(x, y, strict=True))
    # Of four batches: positions, noise and places in cells of those; items with these, labels and noise of these.
    assert sent[sim.NAME, 1.0] == 4 * (3 if levels else 2)
    assert sent[sim.NAME, 0.0] == 4 * 3
