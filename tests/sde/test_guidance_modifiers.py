"""Limits of guidance: intervals of noise level, rescale, thresholds; on every process, alone and together."""

import math

import pytest
import torch

from samplers import SAMPLERS, generate, log_likelihood
from sde import VPSDE, ScoreModel, Transform
from sde.guidance.autoguidance import Autoguidance
from sde.guidance.classifier import Classifier
from sde.guidance.classifier_free import ClassifierFree
from sde.guidance.conditional import Conditional
from sde.guidance.interval import GuidanceInterval
from sde.guidance.rescale import GuidanceRescale
from sde.guidance.threshold import DynamicThreshold, StaticThreshold
from tests.oracles.by_class import LABELS, MEANS, STD, Bayes, ByClass, batch  # noqa: F401 (a fixture)
from tests.oracles.exact import GaussianMixture


class Fixed(ScoreModel):
    """A posterior mean that is given; the conditional one where there is a label."""

    num_classes, null_trained = 1, True

    def __init__(self, free, own=None, transform=None):
        super().__init__(VPSDE(), transform)
        self.free, self.own = free, free if own is None else own

    def forward(self, x, t, cond=None):
        if cond is None:
            return self.free
        known = cond["labels"].view(-1, *[1] * (self.free.ndim - 1)) >= 0
        return torch.where(known, self.own.repeat(len(x) // len(self.own), *[1] * (self.own.ndim - 1)),
                           self.free.repeat(len(x) // len(self.free), *[1] * (self.free.ndim - 1)))  # fmt: skip


def at_level(sde, level):
    """The time of a noise level sigma / alpha."""
    return sde.t_of_log_snr(torch.tensor(-2 * math.log(level), dtype=torch.float64))


def test_an_interval_is_in_noise_levels(process, batch):  # noqa: F811
    x, _ = batch
    model = ByClass(process)
    guided = ClassifierFree(model, LABELS, 3.0)
    limited = GuidanceInterval(guided, 0.3, 2.0)
    for level in (0.05, 0.29, 0.31, 1.99, 2.01, 6.0):
        t = at_level(process, level)
        expected = guided if 0.3 < level <= 2 else Conditional(model, LABELS)
        assert torch.equal(limited(x, t), expected(x, t)), level


def test_an_interval_of_rows_at_times_of_their_own(process, batch):  # noqa: F811
    x, _ = batch
    model = ByClass(process)
    guided = ClassifierFree(model, LABELS, 3.0)
    limited = GuidanceInterval(guided, 0.3, 2.0)
    t = torch.stack([at_level(process, level) for level in (0.1, 1.0, 5.0, 0.5, 1.5, 0.2)])
    inside = torch.tensor([False, True, False, True, True, False])
    expected = torch.where(inside[:, None], guided(x, t), Conditional(model, LABELS)(x, t))
    torch.testing.assert_close(limited(x, t), expected)
    part = torch.tensor([3, 2])
    torch.testing.assert_close(limited.rows(part)(x[part], t[part]), expected[part])


def test_an_interval_has_its_upper_border_and_not_its_lower(process, batch):  # noqa: F811
    """Two intervals that meet share no level and leave none out, whether rows have a time together or their own."""
    x, _ = batch
    model = ByClass(process)
    guided = ClassifierFree(model, LABELS, 3.0)
    one, row = at_level(process, 1.0), at_level(process, 1.0).expand(len(x))
    for t, level in ((one, process.level(one).noise_level), (row, process.level(row).noise_level[0].item())):
        below, above = GuidanceInterval(guided, 0.3, level), GuidanceInterval(guided, level, 2.0)
        torch.testing.assert_close(below(x, t), guided(x, t))
        torch.testing.assert_close(above(x, t), Conditional(model, LABELS)(x, t))


# Every sampler takes guided models in test_guidance.py; here one of each kind, with times (B,) in the adaptive one.
@pytest.mark.parametrize("name", ["heun", "unipc", "pc", "ode"])
def test_every_sampler_takes_limits(name):
    model = ByClass(VPSDE())
    labels = torch.arange(9) % 3
    guided = Classifier(ClassifierFree(model, labels, 1.5), Bayes(VPSDE()), labels, 0.5)
    limited = DynamicThreshold(GuidanceInterval(GuidanceRescale(guided, 0.1), 0.2, 3.0), 1.0, -2.5, 2.5)
    # None for adaptive samplers, which one step of the loop serves.
    steps = {"langevin": 200, "ode": None, "reverse_sde": None}.get(name, 60)
    sampler = SAMPLERS[name](0.1, 0.1) if name == "reverse_sde" else SAMPLERS[name]()
    x = generate(limited, sampler, 9, (2,), steps=steps, batch_size=4).x
    assert (torch.cdist(x.double(), MEANS).argmin(1) == labels).float().mean() > 0.7


def test_calls_inside_and_outside_an_interval():
    model = ByClass(VPSDE())
    levels = [100.0, 4.0, 1.5, 0.7, 0.05]
    times = torch.stack([at_level(VPSDE(), level) for level in levels])
    for wrap in (lambda guided: guided, lambda guided: GuidanceRescale(guided, 0.5)):
        guided = GuidanceInterval(wrap(ClassifierFree(model, LABELS, 3.0)), 0.5, 2.0)
        # A call at every time, the last one denoises; two inside.
        assert generate(guided, SAMPLERS["ddim"](), 6, (2,), grid=times).mean_nfe == 5 + 2
    unguided = GuidanceInterval(ClassifierFree(model, LABELS, 0.0), 0.5, 2.0)
    assert generate(unguided, SAMPLERS["ddim"](), 6, (2,), grid=times).mean_nfe == 5, "scale 0 takes one call"
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(unguided(x, times[2]), model(x, times[2]))


def test_an_interval_in_the_flow_of_the_likelihood(generator):
    """The adaptive solver, whose items have times of their own, finds for each what it does for it alone."""
    model = ByClass(VPSDE())
    guided = GuidanceInterval(ClassifierFree(model, LABELS, 2.0), 0.3, 2.0)
    x = model.mixture.draw(6, generator)[:2]
    with pytest.raises(ValueError, match="not a normalized density"):
        log_likelihood(guided.rows(slice(0, 2)), x)

    def nats(model, rows):
        return log_likelihood(model.rows(torch.tensor(rows)), x[rows], guided=True, rtol=1e-3, atol=1e-3).nats

    every = nats(guided, [0, 1])
    torch.testing.assert_close(every, torch.cat([nats(guided, [0]), nats(guided, [1])]))
    everywhere = GuidanceInterval(ClassifierFree(model, LABELS, 2.0))
    plain = nats(everywhere.guided, [0, 1])
    torch.testing.assert_close(nats(everywhere, [0, 1]), plain)
    assert (every - plain).abs().max() > 0.05


@pytest.mark.parametrize("shape", [(12,), (3, 2, 2)])
def test_rescale_keeps_the_contrast_of_each_sample(generator, shape):
    free, own = torch.randn(2, 4, *shape, generator=generator, dtype=torch.float64)
    own = own * torch.tensor([0.1, 1.0, 3.0, 10.0]).view(-1, *[1] * len(shape))
    x, t = torch.zeros(4, *shape, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    guided = ClassifierFree(Fixed(free, own), torch.zeros(4).long(), 4.0)
    plain, full, part = guided(x, t), GuidanceRescale(guided, 1.0)(x, t), GuidanceRescale(guided, 0.7)(x, t)
    for i in range(4):
        assert full[i].std().item() == pytest.approx(own[i].std().item())
        assert torch.nn.functional.cosine_similarity(full[i].flatten(), plain[i].flatten(), 0) == pytest.approx(1)
    torch.testing.assert_close(part, 0.7 * full + 0.3 * plain)
    torch.testing.assert_close(GuidanceRescale(guided, 0.0)(x, t), plain)


def test_rescale_of_every_guidance(process, batch):  # noqa: F811
    """The base of guided models within guided models is the one without any guidance."""
    x, t = batch
    model, weak = ByClass(process), GaussianMixture(process, MEANS, 2 * STD)
    own = Conditional(model, LABELS)(x, t)
    free = ClassifierFree(model, LABELS, 3.0)
    for guided in (free, Autoguidance(free, weak, 2.0), Classifier(free, Bayes(process), LABELS, 2.0),
                   Classifier(Autoguidance(free, weak, 2.0), Bayes(process), LABELS, 2.0),
                   GuidanceInterval(free, 1e-3, 1e3), GuidanceRescale(free, 0.5)):  # fmt: skip
        torch.testing.assert_close(guided.base(x, t), own)
        rescaled = GuidanceRescale(guided, 1.0)
        torch.testing.assert_close(rescaled(x, t).std(1), own.std(1))
        part = torch.tensor([4, 1])
        torch.testing.assert_close(rescaled.rows(part)(x[part], t[part]), rescaled(x, t)[part], rtol=1e-6, atol=1e-6)


TRANSFORMS = {
    "levels": (Transform.of_levels(256), None, (-1.0, 1.0)),
    "given": (Transform((1.0,), (2.0,)), (-3.0, 5.0), (-2.0, 2.0)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("quantile", [0.5, 0.9, 1.0])
def test_threshold_stays_within_the_bounds_of_the_data(generator, name, quantile):
    transform, bounds, (low, high) = TRANSFORMS[name]
    d = torch.randn(3, 2, 5, 3, generator=generator, dtype=torch.float64) * torch.tensor([0.1, 1.0, 30.0]).view(
        3, 1, 1, 1
    )
    model = DynamicThreshold(Fixed(d, transform=transform), quantile, *(bounds or ()))
    found = model(torch.zeros_like(d), torch.tensor(0.5, dtype=torch.float64))
    center, half = (low + high) / 2, (high - low) / 2
    for one, before in zip(found, d, strict=True):
        u = (before - center) / half
        s = max(1.0, sorted(u.abs().flatten().tolist())[math.ceil(quantile * 30) - 1])
        torch.testing.assert_close(one, center + half * u.clamp(-s, s) / s)
        assert low - 1e-9 <= one.min() <= one.max() <= high + 1e-9
    torch.testing.assert_close(found[0], d[0], msg="what is within stays")


@pytest.mark.parametrize("name", TRANSFORMS)
def test_static_threshold_clips_every_entry(generator, name):
    transform, bounds, (low, high) = TRANSFORMS[name]
    d = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64) * 10
    found = StaticThreshold(Fixed(d, transform=transform), *(bounds or ()))(d, torch.tensor(0.5, dtype=torch.float64))
    expected = [min(max(value, low), high) for value in d.flatten().tolist()]
    torch.testing.assert_close(found.flatten().tolist(), expected)


def test_threshold_of_channels_with_units_of_their_own():
    """Bounds are those of the data, whatever the units of the model are in each channel."""
    transform = Transform((10.0, 0.0), (5.0, 100.0))
    d = torch.tensor([[[3.0, -9.0], [0.5, -0.25]]], dtype=torch.float64)
    data = transform.decode(d)
    found = transform.decode(DynamicThreshold(Fixed(d, transform=transform), 1.0, -20.0, 20.0)(d, torch.tensor(0.5)))
    torch.testing.assert_close(found, data * 20 / 50)


def test_threshold_of_many_values():
    """torch.quantile refuses more than 2^24 values."""
    d = torch.linspace(-2, 2, 2**24 + 2)[None]
    found = DynamicThreshold(Fixed(d, transform=Transform.of_levels(4)), 0.5)(d, torch.tensor(0.5))
    assert (found.min(), found.max()) == (-1, 1)
    assert (found.abs() == 1).float().mean() == pytest.approx(0.5, abs=1e-3)


def test_refusals():
    model = ByClass(VPSDE())
    guided = ClassifierFree(model, LABELS, 2.0)
    for make, words in (
        (lambda: GuidanceInterval(guided, 2.0, 1.0), "guidance interval 2 to 1: needs .* 0 <= low < high"),
        (lambda: GuidanceInterval(guided, -1.0, 1.0), "0 <= low < high"),
        (lambda: GuidanceInterval(guided, 1e4, 1e5), "this process has 0.0105 to 152"),
        (lambda: GuidanceInterval(guided, 0.0, 0.001), "guidance interval 0 to 0.001"),
        (lambda: GuidanceInterval(guided, math.nan, 1.0), "0 <= low < high"),
        (lambda: GuidanceInterval(Conditional(model, LABELS)), "GuidanceInterval around Conditional, which is not gui"),
        (lambda: GuidanceRescale(model.mixture), "GuidanceRescale around GaussianMixture"),
        (lambda: GuidanceRescale(guided, 1.5), "rescale strength 1.5: needs a number from 0"),
        (
            lambda: GuidanceRescale(guided)(torch.zeros(6, 1).double(), torch.tensor(0.5)),
            r"shape \(6, 1\): one value per event",
        ),
        (lambda: DynamicThreshold(guided, 0.0, -1, 1), "quantile 0: needs a number above 0"),
        (lambda: DynamicThreshold(guided, 1.1, -1, 1), "quantile 1.1"),
        (lambda: DynamicThreshold(guided), "bounds None and None: needs two finite numbers.*only data with levels"),
        (lambda: DynamicThreshold(guided, 0.9, 1, -1), "bounds 1 and -1"),
        (lambda: DynamicThreshold(guided, 0.9, 1), "bounds 1 and None"),
        (lambda: StaticThreshold(guided), "bounds None and None: needs two finite numbers.*only data with levels"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
