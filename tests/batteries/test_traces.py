"""Traces of every network, exact and probed, once and twice differentiated, against its dense Jacobian."""

import pytest
import torch

from samplers import log_likelihood
from samplers.likelihood.divergence import exact_divergence, probed_divergence
from score_sde.run.device import arrange
from sde import VPSDE, Denoiser, NoisyClassifier, ScoreModel
from sde.guidance import Classifier, ClassifierFree, Conditional, LikelihoodGuidance
from sde.inverse import DPS, MMPS, SuperResolution
from sde.networks import UNet
from sde.networks.classifier import UNetClassifier
from tests.batteries.networks import VARIANTS, build, inputs

T = torch.tensor(0.4, dtype=torch.float64)
STEP = 1e-5


def shape_of(variant):
    """A very small shape that it takes, of one to three axes of space in turn."""
    spaces = [(2, 3), (1, 2, 3), (1, 2, 2, 2)]
    return (5,) if VARIANTS[variant][0] == "mlp" else spaces[list(VARIANTS).index(variant) % 3]


CASES = [
    *((variant, shape_of(variant)) for variant in VARIANTS),
    *((variant, (1, 2, 3)) for variant in ("unet", "unet attention", "dit") if len(shape_of(variant)) != 3),
]


def velocity_of(network):
    model = Denoiser(network, VPSDE())
    return lambda x: model.velocity(x, T)


def dense_traces(velocity, x, probes):
    """The trace (B,) and v . J v (k, B) of every row's own Jacobian, by central differences: no derivative of torch's
    is in it."""
    with torch.no_grad():
        flat = x.flatten(1)
        columns = [
            (velocity((flat + step).view_as(x)) - velocity((flat - step).view_as(x))).flatten(1) / (2 * STEP)
            for step in STEP * torch.eye(flat.shape[1], dtype=x.dtype)
        ]
    jacobian = torch.stack(columns, 2)
    v = probes.flatten(2)
    return jacobian.diagonal(dim1=1, dim2=2).sum(1), torch.einsum("kbi,bij,kbj->kb", v, jacobian, v)


@pytest.mark.parametrize(("variant", "shape"), CASES)
def test_traces_are_those_of_the_dense_jacobian(variant, shape):
    """In each layout of weights and items, without a graph in evaluation, and with one in training."""
    network = build(variant, shape).double().eval()
    x, _ = inputs(shape, 2, torch.float64)
    probes = torch.randn(3, *x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    trace, probed = dense_traces(velocity_of(network), x, probes)
    items = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim, torch.contiguous_format)
    plain = torch.contiguous_format
    for weights, layout, graph in (
        ("contiguous", plain, False), ("contiguous", items, False), ("channels_last", plain, False),
        ("channels_last", items, True),
    ):  # fmt: skip
        arrange(network, weights)
        velocity = velocity_of(network.train(graph))
        leaf = x.contiguous(memory_format=layout).requires_grad_()
        out = velocity(leaf)
        some = probed_divergence(out, leaf, probes, 2, True)
        exact = exact_divergence(out if graph else velocity(leaf), leaf, 4, graph)
        torch.testing.assert_close(exact[:, 0].detach(), trace, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(some.T.detach(), probed, rtol=1e-6, atol=1e-6)
        if not graph:
            some = probed_divergence(velocity(leaf), leaf, probes, 2)
            torch.testing.assert_close(some.T, probed, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_traces_are_their_changes(variant):
    """By x and by all parameters, each along one direction: what ``differentiable`` likelihoods are differentiated to,
    in training, with attention that is fused where nothing asks for more."""
    shape = shape_of(variant)
    network = build(variant, shape).double().train()
    arrange(network, "channels_last" if variant in ("unet attention", "unet ncsnpp", "unet fir") else "contiguous")
    velocity = velocity_of(network)
    x, _ = inputs(shape, 2, torch.float64)
    generator = torch.Generator().manual_seed(4)
    along = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in (x, *network.parameters())]
    probes = torch.randn(2, *x.shape, dtype=torch.float64, generator=generator)

    def traces(graph):
        leaf = x.detach().clone().requires_grad_()
        exact = exact_divergence(velocity(leaf), leaf, 64, graph)
        return leaf, exact.sum() + probed_divergence(velocity(leaf), leaf, probes, 64, graph).square().sum()

    leaf, total = traces(True)
    found = torch.autograd.grad(total, [leaf, *network.parameters()], allow_unused=True)
    slopes = [0 if g is None else (g * d).sum().item() for g, d in zip(found, along, strict=True)]

    def moved(points, directions, sign):
        with torch.no_grad():
            for point, direction in zip(points, directions, strict=True):
                point += sign * STEP * direction

    for points, directions, slope in (
        ([x], along[:1], slopes[0]),
        ([*network.parameters()], along[1:], sum(slopes[1:])),
    ):
        ends = []
        for sign in (1, -1):
            moved(points, directions, sign)
            ends.append(traces(False)[1].item())
            moved(points, directions, -sign)
        change = (ends[0] - ends[1]) / (2 * STEP)
        assert abs(change) > 1e-4
        assert slope == pytest.approx(change, rel=1e-5, abs=1e-6)


def guided(name):
    """A guided U-Net with attention in channels_last on (1, 2, 2), for two rows."""

    def random(network):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        arrange(network, "channels_last")
        return network.double()

    torch.manual_seed(0)
    shape, labels = (1, 2, 2), torch.tensor([0, 1])
    options = {"channels": 8, "num_res_blocks": 1}
    model = Denoiser(random(UNet(shape, 2, attention_resolutions=(2,), **options)), VPSDE(), event_shape=shape).eval()
    classifier = NoisyClassifier(random(UNetClassifier(shape, 2, **options)), VPSDE()).eval()
    bound, y = Conditional(model, labels), torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    return {
        "classifier-free": lambda: ClassifierFree(model, labels, 2.0),
        "classifier": lambda: Classifier(bound, classifier, labels, 2.0),
        "denoised": lambda: LikelihoodGuidance(bound, gaussian, y, 2.0, point="denoised"),
        "dps": lambda: DPS(bound, SuperResolution(2), y, 0.1),
        "mmps": lambda: MMPS(bound, SuperResolution(2), y, 0.1, iterations=2),
    }[name]()


def gaussian(x, t, y):
    return -(x - y).square().flatten(1).sum(1)


@pytest.mark.parametrize("name", ["classifier-free", "classifier", "denoised", "dps", "mmps"])
def test_traces_of_guided_models(name):
    model = guided(name)
    x, _ = inputs((1, 2, 2), 2, torch.float64)
    along = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(4))
    trace, _ = dense_traces(lambda x: model.velocity(x, T), x, x[None])

    def found(x, graph):
        leaf = x.clone().requires_grad_()
        return leaf, exact_divergence(model.velocity(leaf, T), leaf, 3, graph)[:, 0]

    torch.testing.assert_close(found(x, False)[1], trace, rtol=1e-5, atol=1e-5)
    leaf, total = found(x, True)
    torch.testing.assert_close(total.detach(), trace, rtol=1e-5, atol=1e-5)
    slope = (torch.autograd.grad(total.sum(), leaf)[0] * along).flatten(1).sum(1)
    ends = [found(x + sign * STEP * along, False)[1] for sign in (1, -1)]
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * STEP), rtol=1e-4, atol=1e-5)


def small():
    return Denoiser(build("mlp", (2,)), VPSDE(), event_shape=(2,)).eval()


@pytest.mark.parametrize(
    ("compiled", "options"),
    [
        ("network", {"probes": 3}),
        ("network", {"at_once": 2}),
        ("network", {"probes": 2, "differentiable": True}),
        ("network in place", {"differentiable": True}),
        ("denoiser", {"probes": 2, "differentiable": True}),
    ],
)
def test_likelihoods_of_a_compiled_network(options, compiled):
    model, x = small(), torch.randn(2, 2, requires_grad=options.get("differentiable", False))
    plain = log_likelihood(model, x, rtol=0.1, atol=0.1, **options)
    inner = model.network if compiled.startswith("network") else model
    if compiled.endswith("in place"):
        inner.compile(backend="aot_eager")
    elif inner is model:
        model = torch.compile(model, backend="aot_eager")
    else:
        model.network = torch.compile(model.network, backend="aot_eager")
    found = log_likelihood(model, x, rtol=0.1, atol=0.1, **options)
    torch.testing.assert_close(found.nats, plain.nats)
    assert found.nats.requires_grad == plain.nats.requires_grad
    if x.requires_grad and compiled.startswith("network"):
        gradients = [torch.autograd.grad(result.nats.sum(), x)[0] for result in (found, plain)]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("method", [DPS, MMPS])
def test_guidance_of_a_compiled_network(method):
    model, x, t = small(), torch.randn(2, 2), torch.tensor(0.4)
    measured = SuperResolution(2, 1), torch.full((1, 1), 0.5), 0.1
    plain = method(model, *measured)(x, t)
    model.network = torch.compile(model.network, backend="aot_eager")
    torch.testing.assert_close(method(model, *measured)(x, t), plain)


class Kernel(torch.autograd.Function):
    """A kernel written by hand, without a derivative."""

    @staticmethod
    def forward(ctx, x):
        return x.sin()


def test_what_torch_cannot_differentiate_is_said():
    model, x = small(), torch.randn(2, 2)
    model.network.encoder.stem.register_forward_hook(lambda module, args, out: Kernel.apply(out))
    for options in ({}, {"probes": 2}, {"differentiable": True}):
        with pytest.raises(ValueError, match=r"derivatives of the model by x that torch cannot take .* hand-written"):
            log_likelihood(model, x, rtol=0.1, atol=0.1, **options)


def test_half_precision_sums_in_single():
    """A network in bfloat16, whose own rounding is all that is left: log p is a float32 near that of its weights in
    float32."""
    model = small()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    x = torch.randn(2, 2, generator=torch.Generator().manual_seed(5)).bfloat16()
    exact = log_likelihood(model, x.float(), rtol=1e-2, atol=1e-2).nats
    found = log_likelihood(model.bfloat16(), x, rtol=1e-1, atol=1e-1)
    assert found.nats.dtype == found.latent.dtype == torch.float32
    torch.testing.assert_close(found.nats, exact, rtol=0.1, atol=0.3)


class Undifferentiated(ScoreModel):
    """A posterior mean that keeps its gradient to itself, or has none."""

    def __init__(self, inner, context, constant=False):
        super().__init__(inner.sde)
        self.inner, self.context, self.constant = inner, context, constant

    def forward(self, x, t):
        with self.context():
            return self.inner(0 * x if self.constant else x, t)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_missing_gradient_is_said(context):
    """Of a model or of its network: the trace would be without it. A constant has none to miss."""
    inner, x = small(), torch.randn(2, 2)
    forward = inner.network.forward
    options = {"rtol": 0.1, "atol": 0.1}
    with pytest.raises(ValueError, match="the model's output depends on x, but has no gradient"):
        log_likelihood(Undifferentiated(inner, context), x, **options)
    with pytest.raises(ValueError, match="the model's output has no gradient by x"):
        DPS(Undifferentiated(inner, context), lambda x: x, torch.zeros(1, 2))(x, T)
    constant = log_likelihood(Undifferentiated(inner, torch.no_grad, constant=True), x, **options)
    plain = log_likelihood(Undifferentiated(inner, torch.enable_grad, constant=True), x, **options)
    torch.testing.assert_close(constant.nats, plain.nats)
    assert torch.equal(constant.nfe, plain.nfe)
    inner.network.forward = context()(forward)
    with pytest.raises(ValueError, match="the network's output depends on x, but has no gradient"):
        log_likelihood(inner, x, **options)
