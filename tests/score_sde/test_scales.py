"""Several scales of guidance: the options at each."""

import pytest

from score_sde.run.guides import UNGUIDED, GuidanceOptions
from score_sde.run.scales import at_each_scale, at_one_scale, varied


def test_one_scale_is_what_it_was():
    assert at_each_scale({}) == (UNGUIDED,)
    assert at_each_scale({"guidance_scale": (2.0,), "classifier_scale": (1.0,), "threshold": "0.9"}) == (
        GuidanceOptions(2.0, 1.0, threshold="0.9"),
    )
    assert at_one_scale({"guidance_scale": (2.0,)}) == GuidanceOptions(2.0)
    with pytest.raises(ValueError, match="--weak=w: with --guidance_scale=1 it does nothing"):
        at_each_scale({"guidance_scale": (1.0,), "weak": "w"})


def test_each_scale_has_the_other_flags():
    found = at_each_scale({"guidance_scale": (0.0, 2.0), "classifier_scale": (1.5,), "guidance_rescale": 0.5})
    assert found == tuple(GuidanceOptions(scale, 1.5, guidance_rescale=0.5) for scale in (0.0, 2.0))
    found = at_each_scale({"guidance_scale": (0.0,), "classifier_scale": (0.0, 2.0), "guidance_interval": "0.3,3"})
    assert found == tuple(GuidanceOptions(0.0, scale, guidance_interval="0.3,3") for scale in (0.0, 2.0))


def test_what_has_nothing_to_do_is_left_out():
    limits = {"weak": "w", "guidance_interval": "0.3,3", "guidance_rescale": 0.5, "threshold": "0.9"}
    plain, guided = at_each_scale({"guidance_scale": (1.0, 3.0), **limits})
    assert plain == GuidanceOptions(threshold="0.9")
    assert guided == GuidanceOptions(3.0, **limits)
    plain, _ = at_each_scale({"guidance_scale": (1.0, 3.0), "classifier_scale": (2.0,), **limits})
    assert plain == GuidanceOptions(1.0, 2.0, **limits | {"weak": None})
    plain, guided = at_each_scale({"classifier_scale": (0.0, 3.0), "guidance_rescale": 0.5})
    assert (plain, guided) == (UNGUIDED, GuidanceOptions(1.0, 3.0, guidance_rescale=0.5))
    with pytest.raises(ValueError, match="--weak=w: with --guidance_scale=1 it does nothing"):
        at_each_scale({"classifier_scale": (1.0, 3.0), "weak": "w"})


@pytest.mark.parametrize(("values", "flag"), [
    ({"guidance_scale": (1.0, 2.0, 4.5)}, "guidance_scale"),
    ({"guidance_scale": (1.0, 2.0), "classifier_scale": (2.0,)}, "guidance_scale"),
    ({"guidance_scale": (2.0,), "classifier_scale": (0.0, 2.0)}, "classifier_scale"),
])  # fmt: skip
def test_the_flag_that_varies(values, flag):
    assert varied(at_each_scale(values)) == (flag, list(values[flag]))


def test_mistakes():
    both = {"guidance_scale": (1.0, 2.0), "classifier_scale": (0.0, 3.0)}
    with pytest.raises(
        ValueError, match="--guidance_scale=1,2 and --classifier_scale=0,3: one of them can have several"
    ):
        at_each_scale(both)
    with pytest.raises(ValueError, match="--classifier_scale=0,3: takes a single scale here"):
        at_one_scale({"classifier_scale": (0.0, 3.0)})
