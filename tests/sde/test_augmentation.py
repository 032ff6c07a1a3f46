"""Augmented items: what they show, by what the network is told of them."""

import math

import pytest
import torch

from sde.training.augmentation import AUGMENTATIONS, DRAWS, Augmentation, resampled, transformations


def waves(points):
    """A smooth image (1, H, W) of points (H, W, 2), right and down in pixels from the middle."""
    right, down = points.unbind(-1)
    return (torch.cos(0.35 * right + 0.2 * down) + torch.sin(0.3 * down - 0.1))[None]


def pixels(height, width):
    rows, columns = torch.arange(height).double(), torch.arange(width).double()
    down, right = torch.meshgrid(rows - (height - 1) / 2, columns - (width - 1) / 2, indexing="ij")
    return torch.stack([right, down], -1)


def turn(angle):
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 20)])
@pytest.mark.parametrize(
    "back",
    [torch.eye(2).double(), turn(0.6), turn(-2.5), 0.8 * turn(0.0), torch.tensor([[1.15, 0.0], [0, 0.87]]).double()],
)
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.11, -0.06)])
def test_images_are_read_where_they_were(height, width, back, shift):
    points, shift = pixels(height, width), torch.tensor([shift], dtype=torch.float64)
    found = resampled(waves(points)[None], back[None], shift)[0]
    origin = (points - shift[0] * torch.tensor([width, height])) @ back.T
    # Within the image, as it is mirrored at its edges, and the filter sees the kink.
    inside = (origin.abs() <= torch.tensor([width, height]) / 2 - 3).all(-1)
    assert inside.sum() > 40
    assert (found - waves(origin)).abs()[0][inside].max() < 0.01


def test_the_identity_keeps_every_digit_and_whole_shifts_are_mirrored():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    still = torch.eye(2).double().expand(2, 2, 2)
    assert torch.allclose(resampled(x, still, torch.zeros(2, 2).double()), x, atol=1e-12)
    shift = torch.tensor([[2 / 8, 0.0], [0.0, -3 / 8]], dtype=torch.float64)
    found = resampled(x, still, shift)
    assert torch.allclose(found[0], torch.cat([x[0][:, :, [2, 1]], x[0][:, :, :-2]], 2), atol=1e-12)
    assert torch.allclose(found[1], torch.cat([x[1][:, 3:], x[1][:, [6, 5, 4]]], 1), atol=1e-12)


def test_what_is_told_is_what_was_done():
    told, back, shift = transformations(torch.rand(4000, DRAWS, dtype=torch.float64), 0.12)
    scale, cos, sin = told[:, 2], told[:, 3] + 1, told[:, 4]
    stretch, direction = told[:, 5:7].norm(dim=1), torch.atan2(told[:, 6], told[:, 5])
    for row in range(0, 4000, 37):
        angle = torch.atan2(sin[row], cos[row])
        # A stretch and its inverse are told alike.
        wanted = [
            2 ** (-0.2 * scale[row])
            * turn(angle)
            @ turn(-direction[row])
            @ torch.diag(2 ** (sign * 0.2 * stretch[row] * torch.tensor([-1.0, 1.0], dtype=torch.float64)))
            @ turn(direction[row])
            for sign in (1, -1)
        ]
        assert any(torch.allclose(back[row], matrix, atol=1e-12) for matrix in wanted)
    assert torch.equal(shift, 0.125 * told[:, 7:])


def test_how_often():
    told, _, _ = transformations(torch.rand(100_000, DRAWS, dtype=torch.float64), 0.12)
    rates = (told != 0).double().mean(0)
    error = 4 * math.sqrt(0.12 * 0.88 / 100_000)
    assert abs(rates[0] - 0.5) < 4 * 0.5 / math.sqrt(100_000)
    assert abs(rates[1] - 0.06) < error
    assert ((rates[[2, 3, 4, 5, 7, 8]] - 0.12).abs() < error).all()
    # Half of the stretches are along the axes.
    assert abs(rates[6] - 0.06) < error
    there = told[:, 2][told[:, 2] != 0]
    assert abs(there.std() - 1) < 0.03
    plain, back, shift = transformations(torch.rand(50, DRAWS, dtype=torch.float64), 0.0)
    assert not plain[:, 1:].any()
    assert not shift.any()
    assert torch.allclose(back, torch.eye(2).double().expand(50, 2, 2), atol=1e-15)


def test_flips_are_told_and_seen():
    x, seeds = torch.randn(400, 1, 4, 6), torch.arange(400)
    found, told = AUGMENTATIONS["edm"](x, seeds, 0.0)
    assert torch.equal(found, torch.where(told[:, :1, None, None] > 0, x.flip(-1), x))
    plain, nothing = AUGMENTATIONS["flip"](x, seeds, 0.0)
    assert nothing is None
    assert torch.equal(plain, found)
    assert 150 < told[:, 0].sum() < 250


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_item_is_augmented_by_its_own_seed(name):
    x, seeds = torch.randn(12, 3, 8, 8), torch.arange(12) * 7
    whole, told = AUGMENTATIONS[name](x, seeds, 0.5)
    for rows in (slice(0, 5), slice(5, 12)):
        part, said = AUGMENTATIONS[name](x[rows], seeds[rows], 0.5)
        assert torch.allclose(part, whole[rows], atol=1e-5)
        assert told is said is None or torch.equal(said, told[rows])


def test_what_is_no_image():
    with pytest.raises(ValueError, match=r"items of shape \(5,\) are no images"):
        AUGMENTATIONS["edm"](torch.randn(3, 5), torch.arange(3), 0.1)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("cond", [None, {"labels": torch.tensor([1, 0, 2, -1, 1])}])
def test_networks_are_told_beside_their_conditions(name, cond):
    x, seeds = torch.randn(5, 1, 8, 8), torch.arange(5)
    wanted, told = AUGMENTATIONS[name](x, seeds, 0.5)
    found, both = Augmentation(name, 0.5, augment_dim=9)(x, cond, seeds)
    assert torch.equal(found, wanted)
    # Zero is what sampling tells.
    assert torch.equal(both["augmentation"], torch.zeros(5, 9) if told is None else told)
    assert {kind for kind in both if kind != "augmentation"} == {*(cond or {})}
    if name != "edm":
        found, same = Augmentation(name, 0.5)(x, cond, seeds)
        assert torch.equal(found, wanted)
        assert same is cond


def test_what_cannot_be_augmented():
    def refusal(name, shape=(3, 8, 8), padded=False, conditions=(), augment_dim=9, coded=False):
        with pytest.raises(ValueError, match=f"augmentation = '{name}'") as error:
            Augmentation(name, 0.1, augment_dim).check(shape, padded, conditions, coded)
        return str(error.value)

    for name in ("flip", "edm"):
        assert "items of unequal size" in refusal(name, padded=True)
        assert "items of shape (2,) are no images" in refusal(name, (2,))
        assert "the latents of an item are computed once" in refusal(name, coded=True)
        assert "the image of the condition" in refusal(name, conditions=("labels", "image"))
    assert "tells the network 9 numbers, and the network has no `augment_dim`" in refusal("edm", augment_dim=0)
    assert "the network has `augment_dim` = 6: set that to 9" in refusal("edm", augment_dim=6)
    for name, augment_dim in (("edm", 9), ("flip", 0), ("flip", 9)):
        Augmentation(name, 0.1, augment_dim).check((3, 8, 8), False, ("labels", "vector"))
    Augmentation("none").check((2,), True, ("image",))


def test_crops_are_moved_by_whole_pixels():
    """Up to an eighth of each side, mirrored or not, and edges are repeated; every move comes equally often."""
    height, width, count = 16, 24, 7000
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = torch.stack([rows, columns]).float().expand(count, 2, height, width)
    found = AUGMENTATIONS["crop"](x, torch.arange(count), 0.0).x
    mirrored = found[:, 1, 0, 5] > found[:, 1, 0, 6]
    down = found[:, 0, 8, 0].long() - 8
    right = torch.where(mirrored, width - 1 - found[:, 1, 0, 12], found[:, 1, 0, 12]).long() - 12
    expected_rows = (torch.arange(height) + down[:, None]).clamp(0, height - 1)
    expected_columns = (torch.arange(width) + right[:, None]).clamp(0, width - 1)
    expected_columns = torch.where(mirrored[:, None], width - 1 - expected_columns, expected_columns)
    assert (found[:, 0] == expected_rows[:, :, None]).all()
    assert (found[:, 1] == expected_columns[:, None]).all()
    counts = ((mirrored.long() * 5 + down + 2) * 7 + right + 3).bincount(minlength=70)
    assert counts.shape == (70,)
    assert 50 < counts.min() <= counts.max() < 160
