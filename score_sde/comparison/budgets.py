"""Budgets of network calls: the steps that they allow, and a sentence on the samplers that need more."""

from collections.abc import Callable, Mapping, Sequence


def steps_within(calls_of: Callable[[int], float], budget: int) -> int:
    """The most steps that take at most ``budget`` calls, 0 where a single one takes more. ``calls_of(steps)`` counts,
    and never falls."""
    if calls_of(1) > budget:
        return 0
    each = max(1, calls_of(2) - calls_of(1))
    # Guidance in an interval of noise levels makes some steps dearer than others.
    steps = 1 + int((budget - calls_of(1)) // each)
    while calls_of(steps) > budget:
        steps -= 1
    while steps < budget and calls_of(steps + 1) <= budget:
        steps += 1
    return steps


def left_out(exceeded: Mapping[tuple[tuple[int, ...], float], Sequence[str]]) -> str:
    """A sentence on names of samplers by the budgets that one step exceeds, and the calls that it takes."""
    parts = [
        f"{listed(names)} at {listed(below)} call{'s' * (below != (1,))}, as one step takes {least:g}"
        for (below, least), names in exceeded.items()
    ]
    return f"without {'; '.join(parts)}."


def listed(values: Sequence[object]) -> str:
    """As in a, b and c."""
    *others, last = map(str, values)
    return f"{', '.join(others)} and {last}" if others else last
