"""Schedules of chains as projects and people write them."""

import re
from typing import Any

from sde.pretrained.facts import MISSING, Facts
from sde.process.chain import ChainSDE

STEPS = re.compile(r"(\d+) *steps")


def settle_schedule(facts: Facts, name: str, steps: str, found: Any = MISSING, count: Any = MISSING) -> tuple[str, int]:
    """The name of the schedule and its number of steps, by the project's own names of the two options, ``found`` and
    ``count`` in the file; or told in one text as ``schedule``, as "cosine, 1000 steps". Raises ValueError where either
    is missing, or told otherwise than found."""
    first, number = schedule_of(facts)
    found, count = _agreed(name, first, found), _agreed(steps, number, count)
    return facts.settle(name, found, str), facts.settle(steps, count, int)


def schedule_of(facts: Facts) -> tuple[Any, Any]:
    """The name and the number of steps in the text ``schedule``, MISSING where it has none."""
    text = facts.told("schedule")
    first, number = (None, None) if text is MISSING else (re.match(r"\w+", str(text)), STEPS.search(str(text)))
    return first[0] if first else MISSING, int(number[1]) if number else MISSING


def told_flag(facts: Facts, name: str) -> bool:
    """Whether an option is on that is off by default: told by its name, or as a word of ``schedule``."""
    words = re.findall(r"\w+", str(facts.get("schedule", "")))
    return facts.get(name, name in words)


def _agreed(name: str, told: Any, found: Any) -> Any:
    if MISSING not in (told, found) and told != found:
        raise ValueError(f"facts: schedule tells {name} = {told!r}, but the file has {found!r}")
    return found if told is MISSING else told


def linear_or_cosine(name: str, steps: int) -> ChainSDE:
    """The chain of one of these schedules; linear betas are for a thousand steps, and scaled to another number (Nichol
    and Dhariwal 2021, code). Raises ValueError for any other."""
    if name == "cosine":
        return ChainSDE("cosine", steps=steps)
    if name == "linear":
        return ChainSDE("linear", steps=steps, beta_start=1000 / steps * 1e-4, beta_end=1000 / steps * 0.02)
    raise ValueError(f"facts: the schedule {name!r} has no process here: linear and cosine have")
