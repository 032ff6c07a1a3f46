"""EfficientNet-Lite against its definition."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sde.networks.efficientnet_lite import load_efficientnet_lite
from tests.oracles.efficientnet_lite import defined, tensors
from tests.oracles.foreign import SHARED, relative

WEIGHTS = SHARED / "weights" / "efficientnet-lite0-features.safetensors"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "small.safetensors"
    save_file(tensors(), path)
    return path


@pytest.mark.parametrize("size", [37, 64])
def test_maps_and_features_are_those_of_the_definition(small, size):
    image = np.random.default_rng(size).integers(0, 256, (3, size, size)).astype(np.uint8)
    network = load_efficientnet_lite(small, size).double()
    maps, features = defined(load_file(small), image.astype(float))
    x = torch.tensor(image)[None]
    for found, wanted in zip(network.maps(x), maps, strict=True):
        assert relative(found[0], torch.tensor(wanted)) < 1e-5
    assert relative(network(x)[0], torch.tensor(features)) < 1e-5
    assert len(network.maps(x, 3)) == 3


def test_rows_do_not_see_each_other(small):
    x = torch.rand(35, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    network = load_efficientnet_lite(small, 16)
    assert torch.allclose(network(x), torch.cat([network(one) for one in x.split(1)]), atol=1e-6)


def test_other_sizes_are_resized_as_by_interpolation_between_centers(small):
    """An image whose columns rise linearly, at twice the size: pixel j has its center at (j + 1/2) / 2 - 1/2."""
    network = load_efficientnet_lite(small, 32)
    x = torch.arange(16.0).expand(1, 3, 16, 16) * 10
    larger = (10 * ((torch.arange(32) + 0.5) / 2 - 0.5)).clamp(0, 150).expand(1, 3, 32, 32)
    assert torch.allclose(network(x), network(larger), atol=1e-5)


def test_gradients_reach_the_images_and_no_weight(small):
    x = (255 * torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))).requires_grad_()
    network = load_efficientnet_lite(small, 24).train()
    network(x)[0].sum().backward()
    assert x.grad[0].abs().sum() > 0
    assert x.grad[1].abs().sum() == 0
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda found: found.pop("_blocks.3._bn2.bias"), "no tensor _blocks.3._bn2.bias"),
        (lambda found: found.pop("_conv_stem.weight"), "no tensor _conv_stem.weight"),
        (lambda found: found.update({"_bn0.weight": torch.full((4,), torch.nan)}), "some numbers are not finite"),
        (lambda found: found.update({"_blocks.1._bn2.bias": torch.zeros(7)}), "efficientnet_lite_pytorch"),
        (lambda found: [found.pop(name) for name in [*found] if name.startswith("_blocks.10.")], "7 stages"),
    ],
)
def test_other_files_are_refused(tmp_path, change, sentence):
    found = tensors()
    change(found)
    save_file(found, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=sentence):
        load_efficientnet_lite(tmp_path / "other.safetensors")


def test_no_file_and_gray_images_are_refused(small, tmp_path):
    with pytest.raises(ValueError, match="needs a safetensors file of EfficientNet-Lite"):
        load_efficientnet_lite(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match=r"takes RGB images"):
        load_efficientnet_lite(small)(torch.zeros(1, 1, 28, 28))


def test_published_weights():
    """Lite0 of ImageNet: 1,280 features by the definition, at a size that numpy is quick at."""
    if not WEIGHTS.exists():
        pytest.skip(f"there is no {WEIGHTS}: weights of others are not part of this project")
    image = np.random.default_rng(0).integers(0, 256, (3, 48, 48))
    network = load_efficientnet_lite(WEIGHTS, 48)
    assert [block.depthwise.kernel_size[0] for block in network.blocks] == [3] * 3 + [5, 5] + [3] * 3 + [5] * 7 + [3]
    found = network(torch.tensor(image)[None])[0]
    assert found.shape == (1280,)
    assert relative(found.double(), torch.tensor(defined(load_file(WEIGHTS), image.astype(float))[1])) < 1e-4
