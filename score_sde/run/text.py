"""Text of a run: its encoder as the config describes it, and ``--prompt`` as conditions."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from score_sde.config.config import find
from score_sde.config.naming import with_keys
from score_sde.config.options import Config
from sde.condition.text import TextEncoder
from sde.condition.text.token_vectors import shortened
from sde.condition.tree import Condition
from sde.data import Split
from sde.files import expanded
from sde.model.denoiser import Preconditioned

NAMED = 3
"""Captions that are said to be seen in part, at most."""


def encoder_of_config(config: Config, parts: Split) -> TextEncoder:
    """The text encoder that a config describes for a model that is still to be trained, of its training captions; warns
    of captions of which a part is not seen."""
    options = dict(config.model.text)
    name, captions = options.pop("name"), parts[0].captions or []
    with with_keys("model.text"):
        encoder = find("model.text", name)(captions, **options)
        told = [*dict.fromkeys([*captions, *(parts[1].captions or [])])]
        notes = encoder.notes(told)
    if notes:
        more = f"; {len(notes) - NAMED} more are alike" if len(notes) > NAMED else ""
        said = "; ".join(notes[:NAMED]).replace("prompt", "caption")
        warnings.warn(f"of {len(told):,} captions: {said}{more}", stacklevel=2)
    return encoder


def read_prompts(flag: str, text: str) -> list[str]:
    """The prompts of ``--prompt`` or ``--negative_prompt``: those of a text file, one per line, or the text itself.
    Raises ValueError for a file that has none, or is not there."""
    path = Path(expanded(text))
    try:
        is_file = path.is_file()
    except OSError:
        # Longer than names of files can be.
        is_file = False
    if not is_file:
        if path.suffix == ".txt" and len(text.split()) == 1:
            raise ValueError(
                f"{flag}={text} does not exist (looked in {Path.cwd()}): name a file of prompts, or a prompt"
            )
        return [text]
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{flag}={text} is no text in UTF-8 ({error}): it needs a prompt in each line") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{flag}={text} holds no prompt: it needs one in each line")
    return prompts


def cycled_prompts(prompts: Sequence[str], count: int) -> list[str]:
    """``count`` prompts, the first ones again behind the last."""
    return [prompts[number % len(prompts)] for number in range(count)]


def reads(model: object) -> bool:
    """Whether a model is told captions; one of one's own need not say so."""
    return getattr(model, "text", None) is not None


def prompted(
    model: Preconditioned, flag: str, prompts: Sequence[str], count: int, *, negative: bool = False
) -> Condition:
    """What a model is told of prompts, cycled over ``count`` rows; of ``negative`` ones, to steer away from. Warns of
    prompts of which a part is not seen. Raises ValueError for a model without text."""
    if model.text is None:
        kinds = " and ".join(("labels",) * bool(model.num_classes) + tuple(model.conditions)) or "nothing"
        raise ValueError(
            f"{flag}={shortened(prompts[0])}: the model is conditioned on {kinds}, not on text; leave it out, or train "
            "one with config.data.conditions=('text',)"
        )
    with with_keys(folder="config.model.text.folder"):
        for note in model.text.notes(prompts):
            warnings.warn(f"{flag}: {note}", stacklevel=2)
        rows = model.text.negative(prompts) if negative else model.text(prompts)
    return {kind: c[torch.arange(count) % len(prompts)].cpu() for kind, c in rows.items()}
