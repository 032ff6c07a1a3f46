"""Names at the edge: sentences of the library with the user's flags and config keys in them."""

import warnings

import pytest

from score_sde.config.naming import with_flag, with_keys, with_words


def said(context, sentence, kind=ValueError):
    with pytest.raises(kind) as caught, context:
        raise kind(sentence)
    return str(caught.value)


def test_keys_of_sections():
    assert said(with_keys("training"), "lr = 0: needs a positive number") == (
        "config.training.lr = 0: needs a positive number"
    )
    assert said(with_keys("classifier"), "lr = 0: needs a positive number").startswith("config.classifier.lr = 0")
    assert said(with_keys("training"), "slr = 0 and lr_at stay, `lr` is marked") == (
        "slr = 0 and lr_at stay, config.training.lr is marked"
    )


def test_flags_stand_in_front():
    key = {"cond_dropout": "config.training.cond_dropout"}
    assert said(with_flag("--guidance_scale", "2", **key), "train with `cond_dropout` above 0") == (
        "--guidance_scale=2: train with config.training.cond_dropout above 0"
    )
    assert said(with_words("--task=inpaint --mask=left"), "it hides all") == "--task=inpaint --mask=left: it hides all"


def test_warnings_are_named_too():
    with warnings.catch_warnings(record=True) as seen, with_keys("training"):
        warnings.simplefilter("always")
        warnings.warn("lr = 9: is large", UserWarning, stacklevel=1)
    assert str(seen[0].message) == "config.training.lr = 9: is large"


def test_all_else_passes():
    with with_flag("--flag", 1):
        pass
    assert said(with_flag("--flag", 1), "no sample", ArithmeticError) == "no sample"
