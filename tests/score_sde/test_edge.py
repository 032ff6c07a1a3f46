"""The edge: sentences of the library with the user's keys and flags in them."""

import re

import pytest

from score_sde.config.edge import naming

CASES = [
    ("lr = 0: needs a number", "config.training.", {}, "config.training.lr = 0: needs a number"),
    ("train with cond_dropout above 0", "--guidance_scale=2: ", {"cond_dropout": "config.training.cond_dropout"},
     "--guidance_scale=2: train with config.training.cond_dropout above 0"),
    ("draws = 2: config.draws and draws_left stay", "", {"draws": "--draws"},
     "--draws = 2: config.draws and draws_left stay"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "front", "names", "expected"), CASES)
def test_keys_and_flags_are_put_into_sentences(sentence, front, names, expected):
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"), naming(front, **names):
        raise ValueError(sentence)


def test_all_else_passes():
    with naming("--flag: "):
        pass
    with pytest.raises(ArithmeticError, match=r"^no sample"), naming("--flag: "):
        raise ArithmeticError("no sample")
