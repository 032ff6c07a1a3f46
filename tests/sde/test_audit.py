"""The audit before the first step: measured figures against exact ones, and a sentence for each suspicion."""

import math
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from score_sde.config.naming import with_keys
from sde import VESDE, VPSDE, Denoiser
from sde.data.dataset import Dataset
from sde.data.outliers import outliers
from sde.data.transform import Transform
from sde.model.classifier import NoisyClassifier
from sde.networks import CLASSIFIERS, MLP, NETWORKS
from sde.training.audit import audit, describe, prior_mismatch
from sde.training.ignored_inputs import ignored_inputs
from tests.batteries.networks import OWN
from tests.sde.small_data import config, load_dataset


def normal(count=400, event=(3,), seed=0):
    return torch.randn(count, *event, generator=torch.Generator().manual_seed(seed))


def dataset(x=None, classes=2, transform=None):
    x = normal() if x is None else x
    labels = torch.arange(len(x)) % classes if classes else None
    return Dataset(x, labels, classes, transform or Transform.standardize(x))


def denoiser(data, sde=None, sigma_data=None, network=None, null_trained=True):
    network = network or MLP(data.event_shape, data.num_classes, width=8, layers=1)
    sigma_data = sigma_data or data.sigma_data
    return Denoiser(network, sde or VPSDE(), "edm", sigma_data, data.transform, null_trained, data.event_shape)


def quiet(*arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return audit(*arguments)


def warned(sentence, data, model=None):
    """The audit warns of this one thing, in exactly these words."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with with_keys("data", "model", "sde"):
            audit(data, model or denoiser(data))
    assert [warning.category for warning in found] == [UserWarning]
    assert [str(warning.message) for warning in found] == [sentence]
    assert found[0].filename == __file__


def test_lines():
    data, _ = load_dataset(**config("digits"))
    values = data.items.double() + 0.5
    rms = (((values / 8.5 - 1) ** 2).mean() + 1 / 12 / 8.5**2).sqrt().item()
    mean, std = values.mean().item() / 8.5 - 1, (values.var(correction=0) + 1 / 12).sqrt().item() / 8.5
    lines = quiet(data, denoiser(data, sigma_data=0.5))
    assert lines[0] == "data: 1,437 items of shape 1x8x8, uint8, 17 levels, from 0 to 16"
    assert lines[1] == (f"in model units: mean {mean:.3f}, std {std:.3f}, sigma_data {rms:.3f} (the model's: 0.500)")
    assert re.fullmatch(
        r"prior: KL\(q\(x_T\) \|\| prior\) is between \S+e-\d+ and \S+e-\d+ nats per dimension", lines[2]
    )
    counts = torch.bincount(data.labels).tolist()
    assert lines[3] == "items of class " + ", ".join(f"{label}: {count}" for label, count in enumerate(counts))
    about = describe(data)
    assert about["sigma_data"] == pytest.approx(rms, rel=1e-9)
    assert (about["mean"], about["std"]) == pytest.approx((mean, std), rel=1e-9)
    assert (about["count"], about["event_shape"], about["dtype"], about["low"], about["high"], about["levels"],
            about["classes"]) == (1437, [1, 8, 8], "uint8", 0, 16, 17, counts)  # fmt: skip


def test_lines_without_labels_and_with_many():
    data = dataset(classes=None)
    lines = quiet(data, denoiser(data))
    assert len(lines) == 3
    assert lines[0].startswith("data: 400 items of shape 3, float32, continuous, from -")
    x = normal(12_000, (1,))
    data = Dataset(x, torch.arange(12_000) % 100 * (torch.arange(12_000) > 99), 100, Transform.standardize(x))
    lines = quiet(data, denoiser(data))
    assert lines[0].endswith(" (of 10,000 measured)")
    assert lines[3] == "100 classes of 119 (class 1) to 219 (class 0) items, 120.0 on average"


def test_the_model_and_the_random_state_stay_as_they_are():
    data = dataset()
    model = denoiser(data).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    quiet(data, model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.network.training


def test_row_1_floats_that_are_all_integers():
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (500, 1, 4)).astype(np.float32))
    data = dataset(x)
    warned(
        "the items are floats, but all of them whole numbers from 0 to 255: they are taken as continuous, in channel "
        f"0 by model = (data - {x.mean():.4g}) / {x.std(correction=0):.4g}; for quantized data, set "
        "config.data.num_levels=256",
        data,
    )  # fmt: skip
    for fine in (x + 0.5, x - 1, x * 2, x // 32):
        quiet(dataset(fine), denoiser(dataset(fine)))
    quiet(dataset(x, transform=Transform.of_levels(256)), denoiser(data))


def test_row_2_values_that_the_transform_does_not_fit():
    x = (normal(500, (1, 4)).sigmoid() * 16).floor()
    data = dataset(x, transform=Transform.of_levels(256))
    about = describe(data)
    warned(
        f"in model units the data have mean {about['mean']:.3g} and standard deviation {about['std']:.3g}: a transform "
        f"with levels = 256 does not fit values from {x.min():g} to {x.max():g}; look at config.data.num_levels",
        data,
    )  # fmt: skip
    data = dataset(x + 0.5, transform=Transform((0.0,), (2.0,)))
    with pytest.warns(UserWarning, match=r"a transform with scale 2 does not fit values from 0\.5 to 15\.5; look at"):
        audit(data, denoiser(data, VESDE(sigma_max=500.0)))


def test_row_3_not_finite():
    x = normal(4096)
    x[[17, 40, 4000], [0, 1, 0]] = math.nan
    data = dataset(x, transform=Transform())
    with pytest.raises(ValueError, match=r"^3 of 4096 items contain NaN or infinity \(first: 17\): remove or repair"):
        audit(data, denoiser(data, sigma_data=1.0))


def test_row_3_constant_dimensions():
    x = normal(500, (1, 4, 4))
    x[..., 0, :2] = 7.5
    sentence = (
        "2 of 16 dimensions of the data are constant: they have no density, so that likelihoods will say how small "
        "t_min is; leave them out, or declare config.data.num_levels"
    )
    warned(sentence, dataset(x))
    quiet(dataset(x.abs().clamp(0, 16).floor(), transform=Transform.of_levels(8)), denoiser(dataset(x)))


def test_outliers():
    """One value of a huge size, and several; among items that are measured, and elsewhere."""
    x = normal(500, (3, 4))
    x[17, 1, 2] = 1e30
    warned(
        "channel 1 of the data has the value 1e+30, more than 30 times as far from its median as all others, and most "
        "of its variance is from there: the model will hardly tell the others apart; repair or remove such items",
        dataset(x),
    )
    x[[5, 18], 1, 0] = -9999.0
    x[:4, 2, 0] = torch.tensor([999.0, 999.0, 998.0, 999.0])
    assert [(found.channel, found.number, f"{found.value:g}") for found in outliers(dataset(x))] == [
        (1, 1, "1e+30"),
        (2, 4, "999"),
    ]
    x[17, 1, 2] = 0
    with pytest.warns(
        UserWarning, match=r"channel 1 of the data \(the first of 2 such channels\) has 2 values such as -9999, "
    ):
        audit(dataset(x), denoiser(dataset(x)))
    for event in ((1,), (2,)):
        x = normal(20_001, event)
        x[1, 0] = 1e30
        data = dataset(x)
        assert not (data.measured == 1).any()
        warned(
            f"channel 0 of the data is scaled by {data.transform.scale[0]:.4g}, but its standard deviation is "
            f"{x[data.measured, 0].std(correction=0):.4g} in the 10,000 items that were measured: a few values "
            "elsewhere are far from all others; repair or remove such items",
            data,
        )


def test_no_outliers():
    """Few items, sparse ones with single ones and with small weights, heavy tails, counts, points and digits."""
    generator = torch.Generator().manual_seed(0)
    one_hot = torch.eye(300)
    weighted = one_hot * torch.rand(300, 300, generator=generator) + (torch.rand(300, 300, generator=generator) < 0.005)
    heavy = torch.distributions.StudentT(torch.tensor(3.0))
    torch.manual_seed(0)
    for x in (
        *(normal(count, (4,), seed) for count in (2, 3, 5, 20) for seed in range(50)),
        one_hot, weighted, normal(400).exp(), normal(2000, (3,)).mul(2).exp(), heavy.sample((5000, 2)),
        torch.poisson(torch.full((1000, 4), 0.01), generator=generator),
        torch.stack([torch.linspace(0, 1, 500), torch.arange(500.0) > 498], 1),
    ):  # fmt: skip
        assert outliers(Dataset(x, None, None, Transform())) == []
    for name in ("moons", "spiral", "checkerboard", "ring"):
        data, _ = load_dataset(**config("points", toy=name))
        quiet(data, denoiser(data))
    bright = torch.zeros(500, 1, 8, 8, dtype=torch.uint8)
    bright[0, 0, 0, 0] = 255
    assert outliers(dataset(bright, transform=Transform.of_levels(256))) == []


def test_rows_8_and_9_channels_elsewhere():
    warned(
        "items of shape (28, 28, 3) are read as 28 channels of size 28x3: if the last axis holds the channels, set "
        "config.data.channels=last",
        dataset(normal(20, (28, 28, 3))),
    )
    warned(
        "items of shape (28, 3) are read as 28 channels of size 3: if the last axis holds the channels, set "
        "config.data.channels=last",
        dataset(normal(20, (28, 3))),
    )
    warned(
        "items of shape (8, 8) are read as 8 channels of size 8: if they are images without an axis of channels, set "
        "config.data.channels=none",
        dataset(normal(20, (8, 8))),
    )
    for event in ((3, 28, 28), (28, 5), (3, 3), (1, 28, 2), (4, 5, 4)):
        data = dataset(normal(20, event))
        quiet(data, denoiser(data))


def test_row_11_labels_out_of_range():
    data = dataset(classes=11)
    model = denoiser(data, network=MLP(data.event_shape, 10, width=8, layers=1))
    with pytest.raises(ValueError, match=r"^label 10 is out of range: allowed are 0 to 9 \(are they 1-based\?\)$"):
        audit(data, model)


def test_row_11_classes_without_items():
    x = normal()
    warned(
        "2 of 5 classes have no training items (first: 1): samples of them will be arbitrary; number the classes "
        "without gaps",
        Dataset(x, torch.arange(len(x)) % 2 * 2 + 2 * (torch.arange(len(x)) == 5), 5, Transform.standardize(x)),
    )  # fmt: skip


@pytest.mark.parametrize("factor", [0.2, 0.49, 0.51, 1.0, 1.99, 2.01, 30.0])
def test_row_27_sigma_data(factor):
    data = dataset()
    model = denoiser(data, sigma_data=data.sigma_data * factor)
    if 0.5 <= factor <= 2:
        quiet(data, model)
    else:
        warned(
            f"config.model.sigma_data = {factor * data.sigma_data:g}, but the root mean square of the data in model "
            f"units is {data.sigma_data:.3g}: leave it at 0 to use the measured one",
            data, model,
        )  # fmt: skip


def test_row_27_a_process_that_ends_too_early():
    data = dataset()
    measured = data.sigma_data
    assert measured == pytest.approx(1, rel=1e-6)
    warned(
        "the process ends before the data are noise: sigma / alpha = 5 at t_max leaves up to 0.02 nats per dimension "
        "between q(x_T) and the prior; data of root mean square 1 need 22.4, by a larger config.sde.beta_max or "
        "config.sde.sigma_max",
        data, denoiser(data, VESDE(sigma_max=5.0)),
    )  # fmt: skip
    with pytest.warns(UserWarning, match=r"sigma / alpha = 22\.3 "):
        audit(data, denoiser(data, VESDE(sigma_max=22.3)))
    quiet(data, denoiser(data, VESDE(sigma_max=22.4)))
    with pytest.warns(UserWarning, match="the process ends before"):
        audit(data, denoiser(data, VPSDE(beta_max=5.0)))


def test_row_27_every_process_ends_late_enough_for_digits(process):
    data, _ = load_dataset(**config("digits"))
    quiet(data, denoiser(data, process))


def ends(process):
    t = torch.tensor(process.t_max, dtype=torch.float64)
    return process.alpha(t).item(), process.sigma(t).item()


def test_prior_mismatch_of_gaussians(process):
    """The lower bound is exact for independent Gaussian dimensions, the upper one for data at a single point."""
    mean, var = torch.tensor([0.3, -2.0, 5.0]).double(), torch.tensor([1.0, 4.0, 0.1]).double()
    alpha, sigma = ends(process)
    prior = torch.distributions.Normal(0, torch.tensor(process.prior_std(), dtype=torch.float64))
    gaussian = torch.distributions.Normal(alpha * mean, (alpha**2 * var + sigma**2).sqrt())
    exact = torch.distributions.kl_divergence(gaussian, prior).mean().item()
    lower, upper = prior_mismatch(process, mean, var)
    assert lower == pytest.approx(exact, rel=1e-5, abs=1e-15)
    assert lower < upper or alpha == 0
    point = torch.distributions.kl_divergence(torch.distributions.Normal(alpha * mean, sigma), prior).mean().item()
    assert prior_mismatch(process, mean, 0 * var) == pytest.approx((point, point), rel=1e-6, abs=1e-15)


@pytest.mark.parametrize("sde", [VESDE(sigma_max=1.5), VESDE(sigma_max=4.0), VPSDE(beta_max=3.0)])
def test_prior_mismatch_bounds_a_mixture(sde):
    """Data at -1 and 2: KL(q(x_T) || prior) of a mixture of two Gaussians, by numerical integration."""
    points = torch.tensor([-1.0, 2.0]).double()
    alpha, sigma = ends(sde)
    x = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    log_q = torch.logsumexp(torch.distributions.Normal(alpha * points[:, None], sigma).log_prob(x), 0) - math.log(2)
    log_p = torch.distributions.Normal(0.0, sde.prior_std()).log_prob(x)
    exact = torch.trapezoid(log_q.exp() * (log_q - log_p), x).item()
    lower, upper = prior_mismatch(sde, points.mean()[None], points.var(correction=0)[None])
    assert lower < exact < upper


class Deaf(nn.Module):
    """A network that ignores some of what it is told; its output starts at zero."""

    def __init__(self, *ignored, num_classes=3):
        super().__init__()
        self.ignored, self.num_classes = ignored, num_classes
        self.noise, self.label, self.head = nn.Linear(1, 4), nn.Embedding(4, 4), nn.Linear(4, 3)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x, c_noise, cond):
        h = x.mean(1, keepdim=True) * torch.ones(4)
        if "noise" not in self.ignored:
            h = h + self.noise(c_noise[:, None])
        labels = cond["labels"]
        if "null" in self.ignored:
            labels = labels.clamp(min=0)
        if "classes" in self.ignored:
            labels = (labels >= 0).long()
        if "cond" not in self.ignored:
            h = h + self.label(labels + 1)
        return self.head(h.sin())


NOISE = "its noise level (the output is the same for two values of c_noise)"
CLASSES = "its condition (the output is the same for classes 0 and 1)"
NULL = "the null condition (the output is the same for class 0 and for none)"


@pytest.mark.parametrize(("ignored", "named"), [
    ((), []), (("noise",), [NOISE]), (("null",), [NULL]), (("classes",), [CLASSES]), (("cond",), [CLASSES, NULL]),
    (("cond", "noise"), [NOISE, CLASSES, NULL]),
])  # fmt: skip
def test_a_network_that_ignores_its_input(ignored, named):
    data = dataset(classes=3)
    model = denoiser(data, network=Deaf(*ignored))
    assert ignored_inputs(model, (3,)) == named
    if named:
        sentence = (
            f"the network ignores {', and '.join(named)}: use it in the network's forward, or train without conditions "
            "by config.model.conditional=False"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"), with_keys("data", "model", "sde"):
            audit(data, model)
    assert not model.network.head.weight.any()
    without_null = denoiser(data, network=Deaf(*ignored), null_trained=False)
    assert ignored_inputs(without_null, (3,)) == [words for words in named if words != NULL]


@pytest.mark.parametrize("num_classes", [None, 1, 4])
@pytest.mark.parametrize("name", OWN)
def test_own_networks_see_everything(name, num_classes):
    event = (1, 8, 8)
    model = Denoiser(NETWORKS[name](event, num_classes), VPSDE(), "edm", 1.0)
    assert ignored_inputs(model, event) == []


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_own_classifiers_see_the_noise_level(name):
    x = normal(20, (1, 8, 8))
    data = dataset(x, classes=4)
    model = NoisyClassifier(CLASSIFIERS[name]((1, 8, 8), 4), VPSDE(), data.sigma_data)
    assert len(quiet(data, model)) == 4


def test_a_deaf_classifier():
    class Classifier(nn.Module):
        num_classes = 2

        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, x, c_noise):
            return self.head(x)

    assert ignored_inputs(NoisyClassifier(Classifier(), VPSDE()), (3,)) == [NOISE]
