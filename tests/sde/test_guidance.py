"""Guidance against exact Bayes."""

import pytest
import torch

from samplers import SAMPLERS, SCORE_SAMPLERS, generate, log_likelihood
from sde import PARAMETRIZATIONS, VESDE, VPSDE, Denoiser, NoisyClassifier, SubVPSDE, Transform
from sde.guidance.classifier import Classifier
from sde.guidance.classifier_free import ClassifierFree
from sde.guidance.conditional import Conditional
from sde.process.chain import ChainSDE
from tests.oracles.by_class import LABELS, MEANS, Bayes, ByClass, Network, batch, seen_as  # noqa: F401 (a fixture)
from tests.oracles.processes import ending_with_signal


def test_classifier_guidance_turns_the_prior_into_the_class(process, batch):  # noqa: F811
    x, t = batch
    model = ByClass(process)
    guided = Classifier(model.mixture, Bayes(process), LABELS, 1.0)
    torch.testing.assert_close(guided(x, t), model(x, t, LABELS), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("own", [VESDE(1e-3, 80.0), SubVPSDE(), ChainSDE("cosine", steps=100)])
def test_a_classifier_of_another_process(process, batch, own):  # noqa: F811
    """p(y | x_t) is that of the same data and noise level, whatever the units of x; of rows, and of one time for all.
    Beyond the other process it is that of its nearest level."""
    x, t = batch
    most, least = own.log_snr_ends
    inside = (process.log_snr(t) < most) & (process.log_snr(t) > least)
    assert inside.sum() > 2
    model, classifier = ByClass(process), Bayes(own)
    guided = Classifier(model.mixture, classifier, LABELS, 1.0)
    torch.testing.assert_close(guided(x, t)[inside], model(x, t, LABELS)[inside], rtol=1e-5, atol=1e-5)
    one = t[inside][0]
    torch.testing.assert_close(guided(x, one), model(x, one, LABELS), rtol=1e-5, atol=1e-5)
    clean = torch.tensor(process.t_min, dtype=t.dtype)
    seen, time = guided._as_its_own(x, clean)
    at, nearest = process.level(clean), min(process.log_snr(clean).item(), most)
    assert own.log_snr(time).item() == pytest.approx(nearest, rel=1e-5)
    torch.testing.assert_close(seen, x * own.alpha(time) / at.alpha)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5, -1.0])
def test_classifier_free_guidance(process, batch, scale):  # noqa: F811
    x, t = batch
    model = ByClass(process)
    guided = ClassifierFree(model, LABELS, scale)
    expected = (1 - scale) * model.mixture.score(x, t) + scale * Conditional(model, LABELS).score(x, t)
    torch.testing.assert_close(guided.score(x, t), expected, rtol=1e-6, atol=1e-6)
    classifier = Classifier(model.mixture, Bayes(process), LABELS, scale)
    torch.testing.assert_close(guided(x, t), classifier(x, t), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_every_parametrization(process, batch, parametrization):  # noqa: F811
    process, (x, t) = ending_with_signal(process), batch
    t = t.clamp(max=process.t_max)
    exact = ByClass(process)
    model = seen_as(parametrization, exact)
    prior, own = exact.mixture.score(x, t), exact.score_of(LABELS, x, t)
    bayes = NoisyClassifier(Network(process, Bayes(process), 0.7), process, 0.7)
    torch.testing.assert_close(Classifier(model, bayes, LABELS, 1.0).score(x, t), own, rtol=1e-5, atol=1e-5)
    for scale in (0.0, 1.0, 2.5, -1.0):
        guided = ClassifierFree(model, LABELS, scale)
        torch.testing.assert_close(guided.score(x, t), prior + scale * (own - prior), rtol=1e-5, atol=1e-5)


def test_a_scale_for_each_row(process, batch):  # noqa: F811
    """Each row is guided as by its own number, in one batch or two, also of some rows, and through the network's output
    of a denoiser."""
    process, (x, t) = ending_with_signal(process), batch
    model, scale = seen_as("v", ByClass(process)), torch.tensor([0.0, 1.0, 2.5, -1.0, 3.0, 1.5])[: len(x)]
    t, labels = t.clamp(max=process.t_max), LABELS.expand(len(x))
    for batched in (True, False):
        guided = ClassifierFree(model, labels, scale, batched=batched)
        part = guided.rows(torch.tensor([4, 1]))
        for name in ("forward", "noise"):
            rows = getattr(guided, name)(x, t)
            for i, own in enumerate(scale.tolist()):
                alone = ClassifierFree(model, labels[i : i + 1], own)
                torch.testing.assert_close(rows[i : i + 1], getattr(alone, name)(x[i : i + 1], t[i : i + 1]))
            torch.testing.assert_close(getattr(part, name)(x[[4, 1]], t[[4, 1]]), rows[[4, 1]])
    assert not guided.normalized
    for one in (torch.tensor(2.5), torch.tensor([2.5])):
        torch.testing.assert_close(ClassifierFree(model, labels, one)(x, t), ClassifierFree(model, labels, 2.5)(x, t))
    with pytest.raises(ValueError, match=r"is bound to 3 samples, x has 6"):
        ClassifierFree(model, labels, scale[:3])(x, t)
    with pytest.raises(ValueError, match=r"guidance scale of shape \(6, 1\): needs a number, or \(B,\)"):
        ClassifierFree(model, labels, scale[:, None])
    model.null_trained = False
    with pytest.raises(ValueError, match="guidance scale per row needs the unconditional branch"):
        ClassifierFree(model, labels, scale)


def test_a_negative_condition_takes_the_place_of_null(process, batch):  # noqa: F811
    x, t = batch
    model = ByClass(process)
    model.null_trained = False
    own, other = model.score_of(LABELS, x, t), model.score_of((LABELS + 1) % 3, x, t)
    for scale in (0.0, 1.0, 3.0):
        guided = ClassifierFree(model, LABELS, scale, (LABELS + 1) % 3)
        torch.testing.assert_close(guided.score(x, t), other + scale * (own - other), rtol=1e-6, atol=1e-6)
        part = guided.rows(torch.tensor([4, 1]))
        torch.testing.assert_close(part(x[[4, 1]], t[[4, 1]]), guided(x, t)[[4, 1]])
    one, many = (ClassifierFree(model, LABELS, 3.0, negative) for negative in (torch.tensor(2), torch.full((6,), 2)))
    torch.testing.assert_close(one(x, t), many(x, t))


def test_two_calls_are_the_same_in_half_the_memory(process, batch):  # noqa: F811
    x, t = batch
    model, sizes = ByClass(process), []
    model.register_forward_hook(lambda _module, args, _output: sizes.append(len(args[0])))
    one, two = (ClassifierFree(model, LABELS, 2.5, batched=batched).rows(slice(0, 4)) for batched in (True, False))
    torch.testing.assert_close(one(x[:4], t[:4]), two(x[:4], t[:4]))
    assert sizes == [8, 4, 4]


@pytest.mark.parametrize(("scale", "calls"), [(0.0, 1), (1.0, 1), (3.0, 2)])
def test_calls_of_classifier_free_guidance(scale, calls):
    model = ByClass(VPSDE())
    assert generate(ClassifierFree(model, LABELS, scale), SAMPLERS["ddim"](), 6, (2,), steps=4).mean_nfe == calls * 5


# Samplers see x and t alone; guidance on each process is above, in closed form.
@pytest.mark.parametrize("process", ["vp"], indirect=True)
@pytest.mark.parametrize("name", SCORE_SAMPLERS)
def test_every_sampler_takes_guided_models(name, process):
    model = ByClass(process)
    # The adaptive SDE is solved one sample at a time.
    count = 9 if name == "reverse_sde" else 24
    labels = torch.arange(count) % 3
    for guided in (ClassifierFree(model, labels, 1.0), Classifier(model.mixture, Bayes(process), labels, 1.0)):
        # None for adaptive samplers, which one step of the loop serves.
        steps = {"langevin": 200, "ode": None, "reverse_sde": None, "adams": None}.get(name, 40)
        sampler = SAMPLERS[name](0.3, 0.3) if name == "reverse_sde" else SAMPLERS[name]()
        # Equal steps of a time that is the noise level, as EDM's is, would be too large near the data.
        grid = "log_snr" if steps and sampler.grid == "uniform" else None
        x = generate(guided, sampler, count, (2,), steps=steps, grid=grid, batch_size=13).x
        nearest = torch.cdist(x.double(), MEANS).argmin(1)
        assert (nearest == labels).float().mean() > 0.7


def test_one_label_serves_every_sample(batch, process):  # noqa: F811
    x, t = batch
    model = ByClass(process)
    one, many = Conditional(model, torch.tensor(2)), Conditional(model, torch.full((6,), 2))
    torch.testing.assert_close(one(x, t), many(x, t))


def test_guided_likelihood_of_scale_one_is_the_class_density(generator):
    model = ByClass(VPSDE())
    x = model.components[1].draw(4, generator)
    found = log_likelihood(
        Classifier(model.mixture, Bayes(VPSDE()), torch.tensor(1), 1.0), x, rtol=1e-7, atol=1e-7, guided=True
    )
    t_min, t_max = torch.tensor([[VPSDE().t_min], [VPSDE().t_max]], dtype=torch.float64).expand(2, 4)
    component = model.components[1]
    mismatch = VPSDE().prior_log_prob(found.latent) - component.log_prob(found.latent, t_max)
    torch.testing.assert_close(found.nats - mismatch, component.log_prob(x, t_min), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("labels", "words"), [
    (torch.tensor([3]), "1-based"), (torch.tensor([-2]), "out of range"), (torch.tensor([[1]]), "shape"),
])  # fmt: skip
def test_bad_labels(labels, words):
    with pytest.raises(ValueError, match=words):
        Conditional(ByClass(VPSDE()), labels)


def test_likelihood_of_guided_models_is_refused(generator):
    model = ByClass(VPSDE())
    x = model.components[0].draw(6, generator)
    for guided in (ClassifierFree(model, LABELS, 2.0), Classifier(model.mixture, Bayes(VPSDE()), LABELS, 1.0)):
        with pytest.raises(ValueError, match="not a normalized density"):
            log_likelihood(guided, x)
    twice = log_likelihood(ClassifierFree(model, LABELS, 2.0), x, guided=True)
    assert (twice.nfe % 2 == 0).all(), "two passes an evaluation"
    assert log_likelihood(ClassifierFree(model, LABELS, 1.0), x).nats.isfinite().all()


def test_refusals():
    model = ByClass(VPSDE())
    model.null_trained = False
    assert ClassifierFree(model, LABELS, 1.0).scale == 1
    with pytest.raises(ValueError, match="cond_dropout"):
        ClassifierFree(model, LABELS, 2.0)
    unconditional = Denoiser(torch.nn.Linear(2, 2), VPSDE(), transform=Transform())
    with pytest.raises(ValueError, match="unconditional"):
        Conditional(unconditional, LABELS)
    with pytest.raises(ValueError, match="6 samples, x has 4"):
        Conditional(ByClass(VPSDE()), LABELS)(torch.zeros(4, 2).double(), torch.tensor(0.5))


def test_a_bound_condition_lies_on_the_device_of_the_model():
    network = Network(VPSDE(), lambda x, t: x, 0.5)
    network.register_parameter("weight", torch.nn.Parameter(torch.zeros((), device="meta")))
    model = Denoiser(network, VPSDE())
    guided = ClassifierFree(model, torch.tensor([0, 1]), 2.0, negative=torch.tensor([2]))
    bound = [guided.base.cond["labels"], guided.negative["labels"]]
    assert [labels.device for labels in bound] == [torch.device("meta")] * 2
