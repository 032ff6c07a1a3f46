"""Every registered network and every option: shapes, conditions, noise levels, training, files, classifiers."""

import copy
import inspect

import pytest
import torch

from score_sde.config.config import CONFIGS, read_config, resolve
from sde import VPSDE, Denoiser
from sde.networks import CLASSIFIERS, NETWORKS
from sde.networks.mlp import ResidualLayer
from tests.batteries.networks import CASES, OPTIONS, OWN, REFUSED, VARIANTS, build, fresh, inputs, shape_of


@pytest.mark.parametrize(("variant", "shape"), CASES)
def test_any_shape_has_gradients(variant, shape):
    network = fresh(variant, shape)
    x, c_noise = inputs(shape, 2)
    out = network(x, c_noise, None)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert (out == 0).all(), "the output starts at zero"
    (out - x).square().mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize(("variant", "shape"), CASES)
def test_samples_of_a_batch_are_independent(variant, shape):
    network = build(variant, shape).double().eval()
    x, c_noise = inputs(shape, 3, torch.float64)
    together = network(x, c_noise, None)
    assert torch.equal(network(x, c_noise, None), together), "deterministic"
    torch.testing.assert_close(network(x[1:2], c_noise[1:2], None), together[1:2])
    moved = c_noise + torch.tensor([0, 0.5, 0])
    changed = (network(x, moved, None) - together).flatten(1).abs().amax(1) > 1e-6
    assert changed.tolist() == [False, True, False], "the noise level matters, to its own sample"


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name in REFUSED for shape in REFUSED[name]])
def test_refused_shapes(name, shape):
    with pytest.raises(ValueError, match=r"\(channels, \*space\).*use network mlp for vectors"):
        fresh(name, shape)


@pytest.mark.parametrize("variant", VARIANTS)
def test_classes(variant):
    shape = shape_of(variant)
    network = build(variant, shape, 4).eval()
    x, c_noise = inputs(shape, 3)
    plain = network(x, c_noise, torch.tensor([-1, -1, -1]))
    torch.testing.assert_close(network(x, c_noise, None), plain)
    mixed = network(x, c_noise, torch.tensor([-1, 2, 3]))
    torch.testing.assert_close(mixed[0], plain[0])
    assert not torch.allclose(mixed[1], plain[1])
    assert not torch.allclose(network(x, c_noise, torch.tensor([-1, 1, 3]))[1], mixed[1])
    with pytest.raises(ValueError, match="the model is unconditional"):
        build(variant, shape)(x, c_noise, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="the condition has 'text', but the model is conditioned on labels"):
        network(x, c_noise, {"text": torch.zeros(3, 2)})


@pytest.mark.parametrize("variant", [f"{name} {option}" for name, options in OPTIONS.items() for option in options])
def test_no_option_is_idle(variant):
    name, shape = VARIANTS[variant][0], shape_of(variant)
    (x, c_noise), networks = inputs(shape, 2), (build(name, shape), build(variant, shape))
    one, other = (network(x, c_noise, None) for network in networks)
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_fits_a_batch(variant):
    shape = shape_of(variant)
    network = fresh(variant, shape)
    x, c_noise = inputs(shape, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    # A few steps bring a gradient to every parameter, behind layers that begin at zero; the rest is the network's own.
    for _ in range(12 if variant in OWN else 6):
        loss = (network(x, c_noise, None) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < (0.5 if variant in OWN else 1) * x.square().mean()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters()), "no parameter is idle"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_seed_and_a_file_make_the_same_network(variant):
    shape = shape_of(variant)
    first, second = build(variant, shape), fresh(variant, shape)
    x, c_noise = inputs(shape, 2)
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))
    for value in second.state_dict().values():
        value.zero_()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x, c_noise, None), second(x, c_noise, None))
    assert torch.equal(copy.deepcopy(first)(x, c_noise, None), first(x, c_noise, None))


@pytest.mark.parametrize("variant", [v for v, (name, _) in VARIANTS.items() if name != "mlp"])
def test_one_network_for_any_size(variant):
    network = build(variant, (2, 8, 8))
    for space in ((11, 6), (8, 8), (3, 20)):
        assert network(torch.randn(1, 2, *space), torch.zeros(1), None).shape == (1, 2, *space)
    with pytest.raises(ValueError, match=r"x has shape \(1, 8, 8, 2\).* takes \(B, 2, \*space\) with 2 axes"):
        network(torch.zeros(1, 8, 8, 2), torch.zeros(1), None)
    with pytest.raises(ValueError, match=r"x has shape \(1, 2, 8\)"):
        network(torch.zeros(1, 2, 8), torch.zeros(1), None)


WAY_UP = {"conditions", "sequence_layers", "num_heads_upsample", "learned_variance"}
"""Options of what a classifier has not."""

CLASSIFYING = [v for v, (name, options) in VARIANTS.items() if name in CLASSIFIERS and not options.keys() & WAY_UP]


@pytest.mark.parametrize("variant", CLASSIFYING)
def test_classifiers(variant):
    shape = shape_of(variant)
    classifier = fresh(variant, shape, 4, CLASSIFIERS).double().eval()
    x, c_noise = inputs(shape, 3, torch.float64)
    logits = classifier(x, c_noise)
    assert logits.shape == (3, 4)
    torch.testing.assert_close(classifier(x[:1], c_noise[:1]), logits[:1])
    # The encoder is the denoiser's, with every option.
    encoders = classifier.encoder, fresh(variant, shape).encoder
    encoders[0].load_state_dict(encoders[1].state_dict())
    torch.testing.assert_close(*(encoder.double().eval()(x, c_noise)[:2] for encoder in encoders), rtol=0, atol=0)
    own, other = (inspect.signature(table[VARIANTS[variant][0]]).parameters for table in (NETWORKS, CLASSIFIERS))
    assert own.keys() - WAY_UP == other.keys() - {"pool"}, "same options"


def test_residual_layer():
    """h + layers(norm(h) (1 + scale) + shift)."""
    torch.manual_seed(0)
    layer, h, embedding = ResidualLayer(6, 0.0), torch.randn(2, 6), torch.randn(2, 6)
    torch.nn.init.normal_(layer.layers[3].weight)
    scale, shift = layer.modulation(embedding).split(6, dim=1)
    norm = (h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    middle = torch.nn.functional.silu((norm * (1 + scale) + shift) @ layer.layers[0].weight.T + layer.layers[0].bias)
    torch.testing.assert_close(layer(h, embedding), h + middle @ layer.layers[3].weight.T)


def test_autocast_covers_the_body_only():
    model = Denoiser(build("mlp", (5,)), VPSDE())
    model.autocast = torch.bfloat16
    seen = []
    model.network.encoder.stem.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    assert model(torch.randn(2, 5), torch.tensor(0.5)).dtype == torch.float32
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_stays_close(variant):
    network = build(variant, shape_of(variant)).eval()
    x, c_noise = inputs(shape_of(variant), 2)
    exact = network(x, c_noise, None)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x, c_noise, None)
    assert (rough - exact).square().mean() < 0.05**2 * exact.square().mean()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_networks_of_the_configs(path):
    config = resolve(read_config(path), [])
    for section, table in ((config.model.network, NETWORKS), (config.classifier.network, CLASSIFIERS)):
        options = section.to_dict()
        with torch.device("meta"):
            network = table[options.pop("name")](config.data.event_shape or (2, 8), 10, **options)
        assert network.num_classes == 10
