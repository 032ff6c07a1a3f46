"""Held-out losses against the posterior variance of a Gaussian; nearest neighbors against brute force."""

import pytest
import torch

from score_sde.evaluation import validation
from score_sde.evaluation.validation import MAX_TRAINING_ITEMS, Validation
from sde import VPSDE
from sde.checkpoint.spec import build_denoiser, describe_sde
from sde.data.dataset import Dataset
from sde.data.transform import Transform
from sde.training.loss import WEIGHTINGS
from sde.training.times import IMPORTANCE, TIMES
from tests.oracles.exact import GaussianDenoiser
from tests.oracles.processes import Straight

CPU = torch.device("cpu")
STD, SIGMA_DATA = 0.5, 0.8


class Oracle(GaussianDenoiser):
    sigma_data = SIGMA_DATA


class OnDemand:
    """Items as files have them: a shape, a type and indexing, no arithmetic."""

    def __init__(self, items):
        self.items, self.shape, self.dtype = items, items.shape, items.dtype

    def __getitem__(self, index):
        assert isinstance(index, torch.Tensor)
        return self.items[index]


def dataset(items, transform=None, labels=None, num_classes=None):
    return Dataset(OnDemand(items), labels, num_classes, transform or Transform())


def validate(held_out, training=None, sde=None, times="log_normal", weighting="edm", **options):
    return Validation(held_out, training or held_out, sde or VPSDE(), times, weighting, CPU, **options)


def network(dropout=0.2, num_classes=2):
    torch.manual_seed(0)
    model = build_denoiser(
        {"network": {"name": "mlp", "width": 16, "layers": 1, "dropout": dropout}, "event_shape": [3],
         "num_classes": num_classes, "sde": describe_sde(VPSDE()), "parametrization": "edm", "sigma_data": 1.0,
         "transform": {"shift": [0.0], "scale": [1.0], "levels": None}, "null_trained": True}
    )  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("times", [name for name in TIMES if name != "logit_normal"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("sde", [VPSDE(), Straight()], ids=["vp", "straight"])
def test_losses_of_the_exact_model_are_the_posterior_variance(sde, weighting, times, generator):
    """Bin b of eight covers the eighth of the times' distribution with u from b / 8 to (b + 1) / 8."""
    transform = Transform((3.0,), (2.0,))
    model = Oracle(sde, torch.full((2, 6), 0.3), STD)
    data = dataset(transform.decode(model.draw(2000, generator)), transform)
    measured = validate(data, sde=sde, times=times, weighting=weighting, limit=2000, batch_size=1000).losses(model)
    u = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    t = TIMES[times](sde, u)
    ratio = sde.sigma(t) / sde.alpha(t)
    posterior = STD**2 * ratio**2 / (STD**2 + ratio**2)
    edm = (ratio**2 + SIGMA_DATA**2) / (ratio * SIGMA_DATA) ** 2
    bins = measured["by_noise"]
    assert len(bins) == 8
    sigma = torch.tensor([b["noise_level"] for b in bins], dtype=torch.float64)
    torch.testing.assert_close(sigma, ratio.log().view(8, -1).mean(1).exp(), rtol=0.01, atol=0)
    loss = torch.tensor([b["loss"] for b in bins], dtype=torch.float64)
    # 250 items of 12 dimensions a bin: chi-squared with 3,000 degrees of freedom, four standard deviations.
    torch.testing.assert_close(loss, (posterior * edm).view(8, -1).mean(1), rtol=0.105, atol=0)
    weight = WEIGHTINGS[weighting](sde, t, SIGMA_DATA) * IMPORTANCE.get(times, lambda *_: 1.0)(sde, t)
    spread = (weight * posterior).square().mean().sqrt() * (2 / 24_000) ** 0.5
    assert abs(measured["loss"] - (weight * posterior).mean()) < 5 * spread


def test_one_is_what_the_mean_square_alone_gives(generator):
    """D = c_skip x, whatever the data's distribution and the noise."""
    model = network(num_classes=None)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    items = torch.where(torch.rand(2000, 3, generator=generator) < 0.5, -1.0, 1.0)
    measured = validate(dataset(items), limit=2000).losses(model)
    assert [b["loss"] for b in measured["by_noise"]] == pytest.approx([1.0] * 8, abs=0.15)


@pytest.mark.parametrize("levels", [None, 5])
def test_every_model_meets_the_same_draws(levels, generator):
    items = torch.randint(5, (90, 3), generator=generator).float()
    data = dataset(items, Transform((2.0,), (1.5,), levels), torch.arange(90) % 2, 2)
    one, other = network().train(), network().eval()
    before = torch.get_rng_state()
    measured = validate(data)
    assert measured.losses(one) == measured.losses(other) == measured.losses(one), "no dropout, the same draws"
    assert torch.equal(before, torch.get_rng_state())
    assert (one.training, one.network.training, other.training) == (True, True, False)
    split, whole = validate(data, batch_size=7).losses(one), validate(data, batch_size=90).losses(one)
    assert split["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    for a, b in zip(split["by_noise"], whole["by_noise"], strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_dequantisation_fills_the_cells(generator):
    """Data at one level are uniform over a cell; a model that answers its middle errs by the cell's variance."""

    class Middle(Oracle):
        def forward(self, x, t, cond=None):
            return torch.full_like(x, 0.25)

    data = dataset(torch.full((500, 12), 2), Transform((2.0,), (2.0,), 5))
    sde = Straight()
    model = Middle(sde, torch.zeros(12), STD)
    measured = validate(data, sde=sde, times="log_snr", weighting="score").losses(model)
    t = TIMES["log_snr"](sde, (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)
    assert measured["loss"] == pytest.approx((0.5**2 / 12 * sde.log_snr(t).exp()).mean().item(), rel=0.1)


def test_conditional_models_get_the_labels():
    class Knows(Oracle):
        def forward(self, x, t, cond=None):
            return torch.zeros_like(x) if cond is None else cond["labels"][:, None].expand_as(x).to(x)

    labels = torch.arange(50) % 4
    data = dataset(labels[:, None].expand(50, 3).float(), None, labels, 4)
    model = Knows(VPSDE(), torch.zeros(3), STD)
    assert validate(data).losses(model)["loss"] > 0
    model.num_classes = 4
    assert validate(data).losses(model)["loss"] == 0


@pytest.mark.parametrize("count", [1, 5])
def test_few_held_out_items(count):
    measured = validate(dataset(torch.ones(count, 4))).losses(Oracle(VPSDE(), torch.zeros(4), STD))
    assert len(measured["by_noise"]) == count


@pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 4, 4), (2, 2, 3, 2)])
def test_nearest_is_brute_force(shape, monkeypatch, generator):
    monkeypatch.setattr(validation, "NUMBERS_AT_ONCE", 7 * torch.Size(shape).numel())
    training, held_out, samples = (torch.randn((n, *shape), generator=generator) for n in (30, 11, 4))
    scale = torch.linspace(1, 3, shape[0])
    transform = Transform((0.5,) * shape[0], tuple(scale.tolist()))
    measured = validate(dataset(held_out, transform), dataset(training, transform)).nearest(samples)

    def distances(x):
        apart = (x[:, None] - training[None]) / scale.view(-1, *[1] * (len(shape) - 1))
        return apart.square().flatten(2).mean(2).sqrt().min(1).values

    own, other = distances(samples), distances(held_out[[0, 3, 7, 10]])
    median, real = own.quantile(0.5).item(), other.quantile(0.5).item()
    expected = {"median": median, "smallest": own.min().item(), "held_out_median": real,
                "held_out_smallest": other.min().item(), "ratio": median / real}  # fmt: skip
    assert measured == pytest.approx(expected, rel=1e-5)


def test_copies_are_at_distance_zero(generator):
    training, held_out = (torch.randint(256, (n, 3, 8, 8), generator=generator) for n in (300, 40))
    transform = Transform.of_levels(256)
    seen, unseen = dataset(training, transform), dataset(held_out, transform)
    measured = validate(unseen, seen).nearest(training[100:160].float())
    assert (measured["median"], measured["smallest"], measured["ratio"]) == (0, 0, 0)
    assert measured["held_out_smallest"] > 0.1
    assert validate(seen, seen).nearest(held_out.float())["ratio"] is None


def test_small_distances_keep_their_digits(generator):
    training = torch.randn(3000, 2, generator=generator)
    near = training[::50] + torch.tensor([3e-5, -4e-5])
    assert validate(dataset(near), dataset(training)).nearest(near)["smallest"] == pytest.approx(
        5e-5 / 2**0.5, rel=0.02
    )


def test_training_items_are_spread_over_the_set(generator):
    training = torch.arange(2 * MAX_TRAINING_ITEMS + 500.0)[:, None]
    far = validate(dataset(torch.zeros(1, 1)), dataset(training)).nearest(training[-10:])
    assert far["smallest"] <= 2
