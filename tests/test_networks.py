"""Networks over any event shape: shapes, conditions, noise levels, shared encoders."""

import pytest
import torch

from sde import VPSDE, Denoiser
from sde.networks import CLASSIFIERS, NETWORKS
from sde.networks.unet import UNet, UNetEncoder

SMALL = {"unet": {"channels": 8, "multipliers": (1, 2)}, "mlp": {"width": 16, "layers": 2}}
SHAPES = {"unet": [(3, 17), (1, 8, 8), (3, 37, 50), (7, 5, 5), (2, 5, 6, 7)], "mlp": [(5,), (2, 3, 4)]}
CASES = [(name, shape) for name in NETWORKS for shape in SHAPES[name]]


def build(name, shape, classes=None):
    network = NETWORKS[name](shape, classes, **SMALL[name])
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_any_shape_trains(name, shape):
    network = NETWORKS[name](shape, None, **SMALL[name])
    x, c_noise = torch.randn(2, *shape), torch.tensor([-1.0, 1.0])
    out = network(x, c_noise, None)
    assert out.shape == x.shape
    assert (out == 0).all(), "the output starts at zero"
    (out - x).square().mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_samples_of_a_batch_are_independent(name, shape):
    network = build(name, shape).double().eval()
    x, c_noise = torch.randn(3, *shape, dtype=torch.float64), torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    together = network(x, c_noise, None)
    torch.testing.assert_close(network(x[1:2], c_noise[1:2], None), together[1:2])
    assert not torch.allclose(network(x, c_noise + 0.5, None), together), "the noise level matters"


@pytest.mark.parametrize("name", NETWORKS)
def test_classes(name):
    shape = SHAPES[name][-1]
    network = build(name, shape, 4).eval()
    x, c_noise = torch.randn(3, *shape), torch.zeros(3)
    plain = network(x, c_noise, torch.tensor([-1, -1, -1]))
    torch.testing.assert_close(network(x, c_noise, None), plain)
    mixed = network(x, c_noise, torch.tensor([-1, 2, 3]))
    torch.testing.assert_close(mixed[0], plain[0])
    assert not torch.allclose(mixed[1], plain[1])
    with pytest.raises(ValueError, match="unconditional network"):
        build(name, shape)(x, c_noise, torch.tensor([0, 1, 2]))


def test_one_network_for_any_size():
    network = build("unet", (2, 8, 8))
    assert network(torch.randn(1, 2, 11, 6), torch.zeros(1), None).shape == (1, 2, 11, 6)


def test_attention_at_chosen_resolutions():
    encoder = UNetEncoder((1, 28, 20), None, 8, (1, 2, 2), 1, (14,), 0.0)
    assert encoder.attended == [False, True, False]
    with pytest.raises(ValueError, match="resolutions are 28, 14, 7"):
        UNet((1, 28, 28), channels=8, multipliers=(1, 2, 2), attention=(16,))
    with pytest.raises(ValueError, match="mlp for vectors"):
        UNet((5,))


def test_attention_mixes_distant_positions():
    network = UNet((1, 16), channels=8, multipliers=(1,), blocks=1, attention=(16,)).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 1, 16, dtype=torch.float64)
    moved = x.clone()
    moved[..., 15] += 1
    zero = torch.zeros(1, dtype=torch.float64)
    assert (network(moved, zero) - network(x, zero))[..., 0].abs() > 1e-6


def test_classifier_shares_the_encoder():
    classifier = CLASSIFIERS["unet"]((1, 8, 8), 10, channels=8)
    assert type(classifier.encoder) is type(UNet((1, 8, 8), channels=8).encoder)
    assert classifier(torch.randn(3, 1, 8, 8), torch.zeros(3)).shape == (3, 10)
    assert CLASSIFIERS["mlp"]((2,), 4)(torch.randn(3, 2), torch.zeros(3)).shape == (3, 4)


def test_autocast_covers_the_body_only():
    model = Denoiser(build("mlp", (5,)), VPSDE())
    model.autocast = torch.bfloat16
    seen = []
    model.network.encoder.stem.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    assert model(torch.randn(2, 5), torch.tensor(0.5)).dtype == torch.float32
    assert seen == [torch.bfloat16]


def test_ddpm_size():
    """The network of the cifar10 config: within a tenth of the 35.7 million of DDPM's."""
    with torch.device("meta"):
        network = UNet((3, 32, 32), None, channels=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(35.7e6, rel=0.1)
