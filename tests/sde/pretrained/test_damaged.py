"""Files whose tensors have other shapes than the networks of their source: refused in a sentence, whatever it is."""

from dataclasses import replace

import pytest
import torch

from sde.pretrained import load_pretrained
from sde.pretrained.contents import read_contents
from tests.oracles.foreign import FIXTURES, fixture, told


def changed(value: torch.Tensor, how: str) -> torch.Tensor:
    """A tensor of another shape."""
    shapes = {"a row": (3,), "a number": (), "the other way": value.shape[::-1], "nothing": (0, *value.shape[1:])}
    return torch.zeros(shapes[how])


@pytest.mark.parametrize("name", [name for name in FIXTURES if not name.startswith(("diffusers", "edm"))])
def test_tensors_of_other_shapes_are_refused(name, monkeypatch):
    """Some of its matrices and kernels, each of another shape."""
    found = fixture(name)
    path, facts = found.folder / FIXTURES[name], told(found)
    contents = read_contents(path)
    held = contents.data.get("model", contents.data)
    weights = "ema" if held is contents.data else "raw"
    held = {key: value for key, value in held.items() if isinstance(value, torch.Tensor) and value.ndim > 1}
    for number, value in enumerate([*held.values()][::9]):
        how = ("a row", "a number", "the other way", "nothing")[number % 4]
        other = changed(value, how)
        if other.shape == value.shape:
            continue
        data = _replaced(contents.data, value, other)
        monkeypatch.setattr("sde.pretrained.read_contents", lambda _, data=data: replace(contents, data=data))
        with pytest.raises(ValueError, match=r"fit|facts|damaged|none of|neither|no levels|network takes"):
            load_pretrained(path, weights=weights, facts=facts)


def _replaced(data, value, other):
    """Nested dicts with another tensor in the place of one."""
    if isinstance(data, dict):
        return {key: _replaced(inside, value, other) for key, inside in data.items()}
    return other if data is value else data
