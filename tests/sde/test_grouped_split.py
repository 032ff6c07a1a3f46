"""Classes and groups by arrays of an .npz: no group lies on both sides of the split."""

import numpy as np
import pytest
import torch

from sde.data.arrays import open_array
from sde.data.split import split
from sde.data.transform import Transform
from tests.oracles.foreign import SHARED
from tests.sde.small_data import config, load_dataset

EMOJI = SHARED / "emoji32" / "emoji32.npz"


def write(path, **arrays):
    x = np.arange(40).reshape(40, 1, 1, 1) * np.ones((1, 2, 3, 3))
    np.savez(path, **{"images": x, **arrays})
    return path


def ids(part):
    return set(part.items[:, 0, 0, 0].long().tolist())


@pytest.mark.parametrize("names", [np.char.add("g", (np.arange(40) // 5).astype(str)), np.arange(40) // 5 + 7])
def test_groups_are_on_one_side(tmp_path, names):
    """Texts or numbers; groups are held out until there are as many items as asked for."""
    path = write(tmp_path / "x.npz", family=names, other=np.arange(40))
    with pytest.warns(UserWarning, match=r"the array other is left out: if it holds the classes"):
        train, test = load_dataset(**config("points", root=path, channels="last", group_by="family", test_fraction=0.3))
    # 12 items are asked for, and groups have five.
    assert len(test) == 15
    assert len(train) == 25
    assert ids(train) | ids(test) == set(range(40))
    assert not {i // 5 for i in ids(train)} & {i // 5 for i in ids(test)}
    assert train.event_shape == (3, 2, 3)


def test_without_groups_the_split_is_as_ever():
    """Each item its own group: the first of one permutation."""
    x = torch.arange(50.0)[:, None]
    order = np.random.default_rng(0).permutation(50)
    for groups in (None, torch.arange(50) + 3):
        _, test = split(x, None, Transform(), 0.2, groups=groups)
        assert test.items[:, 0].tolist() == sorted(order[:10].tolist())


def test_groups_of_a_class_that_would_be_left_without_any_are_trained_on_whole():
    groups, x = torch.arange(60) // 3, torch.arange(60.0)[:, None]
    order = np.random.default_rng(0).permutation(20)
    # The first group that would be held out has a class of its own, in one of its items.
    lone = int(order[0]) * 3
    labels = torch.zeros(60, dtype=torch.long)
    labels[lone] = 1
    train, test = split(x, labels, Transform(), 0.2, groups=groups)
    held_out = {int(i) // 3 for i in test.items[:, 0]}
    assert held_out == set(order[1:4].tolist())
    assert lone in train.items[:, 0].tolist()
    assert lone + 1 in train.items[:, 0].tolist()


def test_classes_by_another_name_and_their_names(tmp_path):
    """The plural of the array's name has the names of the classes, whose numbers stay; without it they have none."""
    numbers = (np.arange(40) % 3).astype(np.uint8)
    for names, expected in ((np.array(["z", "y", "x"]), ["z", "y", "x"]), (np.array(["z", "y"]), None)):
        path = write(tmp_path / "x.npz", category=numbers, categories=names)
        train, _ = load_dataset(**config("points", root=path, label_by="category"))
        assert train.num_classes == 3
        assert train.about.get("class_names") == expected
        assert all(train.labels[i] == int(train.items[i].flatten()[0]) % 3 for i in range(len(train)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"group_by": "famly"}, r"x\.npz: config.data.group_by = 'famly': needs an array with an integer or a text for "
                                r"each of the 40 items, of which there is family \(did you mean family\?\)"),
        ({"label_by": "weights"}, "config.data.label_by = 'weights': needs an array with an integer or a text"),
        ({"group_by": "family", "test_fraction": 0.9}, "the groups are so large that none is left to train on"),
        ({"group_by": "family", "label_by": "family"}, "every class is in one group alone"),
    ],
)  # fmt: skip
def test_refusals(tmp_path, options, sentence):
    family = np.array(["a"] * 4 + ["b"] * 36)
    path = write(tmp_path / "x.npz", family=family, weights=np.ones(40))
    with pytest.raises(ValueError, match=sentence):
        load_dataset(**config("points", root=path, **options))


def test_groups_need_a_file():
    with pytest.raises(ValueError, match=r"config\.data\.group_by = 'a': names an array of an \.npz: set"):
        load_dataset(**config("points", group_by="a"))


def test_several_arrays_that_may_be_the_items_are_named(tmp_path):
    path = write(tmp_path / "x.npz", more=np.ones((40, 2)))
    with pytest.raises(ValueError, match="holds images, more: name the data x"):
        load_dataset(**config("points", root=path))


@pytest.mark.skipif(not EMOJI.exists(), reason="needs ../shared/data/emoji32, captioned emoji, which are not there")
def test_skin_tones_of_an_emoji_are_on_one_side():
    found, held = open_array(EMOJI, "last", label_by="category", group_by="short"), np.load(EMOJI)
    assert tuple(found.items.shape) == (3786, 3, 32, 32)
    assert found.classes == held["categories"].tolist()
    assert found.labels.tolist() == held["category"].tolist()
    index = torch.arange(3786.0)[:, None]
    train, test = split(index, found.labels, Transform(), 0.15, groups=found.groups)
    assert 568 <= len(test) < 600
    assert len(train) + len(test) == 3786
    tones = [f"1F3F{digit}" for digit in "BCDEF"]
    base = ["-".join(part for part in code.split("-") if part not in tones) for code in held["code"]]
    sides = [{base[i] for i in part.items[:, 0].long().tolist()} - {""} for part in (train, test)]
    assert not sides[0] & sides[1]
