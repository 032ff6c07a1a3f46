"""Facts are told once, by names that the source knows, and agree with the file; names fit one to one."""

import pytest
import torch

from sde.pretrained.facts import MISSING, Facts
from sde.pretrained.foreign import pixels
from sde.pretrained.names.theirs import Theirs, translate

OPTIONS = {"nf": "channels of the first level", "sde": "the process", "ch_mult": "channels of each level over nf"}


def test_facts():
    facts = Facts({"model": {"nf": 8, "ch_mult": [1, 2]}, "training": {"sde": "vesde"}}, OPTIONS)
    assert facts.settle("sde") == "vesde"
    assert facts.settle("nf", 8) == facts.settle("nf") == 8
    assert facts.settle("ch_mult", (1, 2)) == (1, 2)
    assert facts.get("ch_mult", None) == [1, 2]
    with pytest.raises(ValueError, match="facts: nf = 8, but the file has 16"):
        facts.settle("nf", 16)
    with pytest.raises(ValueError, match="facts: nf is needed, channels of the first level"):
        Facts(None, OPTIONS).settle("nf")
    assert Facts({}, OPTIONS).told("nf") is MISSING
    assert Facts({}, OPTIONS).get("nf", 4) == 4
    with pytest.raises(ValueError, match=r"facts: 'nff' is no option of this source, did you mean nf\?"):
        Facts({"nff": 8}, OPTIONS)


def test_a_nested_config_may_say_a_thing_twice():
    twice = {"model": {"nf": 8}, "eval": {"nf": 8}}
    assert Facts(twice, OPTIONS).settle("nf") == 8
    twice["eval"]["nf"] = 9
    with pytest.raises(ValueError, match="nf is told as 8 and as 9"):
        Facts(twice, OPTIONS).settle("nf")


def test_names_fit_one_to_one():
    ours = {"a": torch.empty(2, 3, device="meta"), "b": torch.empty(2, device="meta")}
    names = {"a": Theirs("x.a", lambda w: w.t(), lambda w: w.t()), "b": Theirs("x.b")}
    theirs = {"x.a": torch.arange(6.0).view(3, 2), "x.b": torch.ones(2), "table": torch.ones(1)}
    table = torch.ones(4)
    state = translate(theirs, names, {**ours, "c": table.to("meta")}, frozenset({"table"}), {"c": table})
    assert state.keys() == {"a", "b", "c"}
    assert state["c"] is table
    assert torch.equal(state["a"], theirs["x.a"].t())
    assert torch.equal(names["a"].back(state["a"]), theirs["x.a"])
    with pytest.raises(ValueError, match="it has without a place here table"):
        translate(theirs, names, ours)
    with pytest.raises(ValueError, match=r"the file lacks x\.b \(here b\)"):
        translate({"x.a": theirs["x.a"]}, names, ours)
    with pytest.raises(ValueError, match=r"x\.b is \(3,\), b here \(2,\)"):
        translate(theirs | {"x.b": torch.ones(3)}, names, ours, frozenset({"table"}))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0)])
def test_pixels(low, high):
    """An integer's middle is where its source puts it, and a sample is rounded to the nearest integer."""
    transform, k = pixels(low, high), torch.arange(256.0)
    seen = low + k / 255 * (high - low)
    assert torch.allclose(transform.encode(transform.dequantize(k[:, None], 0.5))[:, 0], seen, atol=1e-6)
    shifted = seen[:, None] + 0.4 / 255 * (high - low)
    assert torch.equal(transform.quantize(transform.decode(shifted))[:, 0], k)


def test_what_is_no_fact():
    with pytest.raises(ValueError, match="facts: 'width' is no option of this source, which has ch_mult, nf, sde"):
        Facts({"width": 8}, OPTIONS)
    with pytest.raises(ValueError, match=r"facts = 'facts\.json': needs a dict of the source's options"):
        Facts("facts.json", OPTIONS)
