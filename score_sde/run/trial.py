"""Trials: which of several ways to do the same is fastest, on a machine that does other things as well."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import t

from sde.device import wait_for

TRIAL_SECONDS = 20.0
"""Seconds of a trial at most, beside those of compiling; on a quiet machine a few are enough."""

MIN_SPEEDUP = 1.2
"""How many times as fast as the plain way another one must be."""

SLIGHT = 1.05
"""A way that is not even this much faster than another one is not looked for any longer."""

CONFIDENCE = 0.99
"""That of either bound of a ratio."""

MIN_PAIRS = 3
"""Pairs of turns below which nothing is known of the noise."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one way is as another: the ``value``, and from where to where it may be."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        sure = f"{2 * CONFIDENCE - 1:.0%} sure of {self.low:.3g} to {self.high:.3g}"
        return f"{self.value:.3g} times as fast ({sure})"


def faster_of_two(seconds: Sequence[float]) -> np.ndarray:
    """The lesser time of every two turns in a row, the last three where they are odd: what slows a machine down comes
    and goes, and nothing makes it faster than it is."""
    starts = range(0, max(1, len(seconds) - 1), 2)
    return np.array([min(seconds[i:] if i == starts[-1] else seconds[i : i + 2]) for i in starts])


def ratio(theirs: Sequence[float], mine: Sequence[float]) -> Ratio:
    """theirs / mine, seconds in the same turns, by Yuen's interval for the trimmed mean of the logarithms (Yuen 1974,
    Biometrika 61, section 2, of one sample) of the ``faster_of_two``: a fifth of the pairs of turns on either side,
    those in which something else had the machine, moves neither. Of fewer pairs than MIN_PAIRS the bounds are 0 and
    infinity."""
    logs = np.sort(np.log(faster_of_two(theirs)) - np.log(faster_of_two(mine)))
    n, g = len(logs), len(logs) // 5
    mean = float(logs[g : n - g].mean())
    if n < MIN_PAIRS:
        return Ratio(math.exp(mean), 0.0, math.inf)
    # The outer ones drawn in to the last that count.
    winsorized = np.clip(logs, logs[g], logs[n - g - 1])
    squares = float(((winsorized - winsorized.mean()) ** 2).sum())
    error = math.sqrt(squares / ((n - 2 * g) * (n - 2 * g - 1)))
    reach = float(t.ppf(CONFIDENCE, n - 2 * g - 1)) * error
    return Ratio(math.exp(mean), math.exp(mean - reach), math.exp(min(mean + reach, 700.0)))


@dataclass(frozen=True)
class Trial:
    """What a trial measured, and the way that it ``chose``: ``seconds`` of each way in its turns, from the first one
    on; the ``plain`` way came first."""

    plain: str
    seconds: dict[str, tuple[float, ...]]
    chosen: str
    min_speedup: float = MIN_SPEEDUP

    @property
    def turns(self) -> int:
        """In how many turns the plain way was timed."""
        return len(self.seconds[self.plain])

    def ratio(self, name: str, other: str | None = None) -> Ratio:
        """How many times as fast a way is as another, by default the plain one, in the turns of both."""
        theirs, mine = self.seconds[other or self.plain], self.seconds[name]
        count = min(len(theirs), len(mine))
        return ratio(theirs[:count], mine[:count])

    def __str__(self) -> str:
        """What was measured, and how sure it is; "... takes" may stand before it."""
        timed = {name: float(np.median(faster_of_two(times))) for name, times in self.seconds.items() if times}
        if not timed:
            return f"too long in {self.plain} to try another way"
        each = ", ".join(f"{milliseconds(value)} in {name}" for name, value in timed.items())
        turns = f"{each} ({self.turns} turns)"
        if self.turns < 2 * MIN_PAIRS:
            return f"{turns}: too few turns to tell speed from noise"
        others = [name for name in timed if name != self.plain]
        best = max(others, key=lambda n: self.ratio(n).value) if self.chosen == self.plain else self.chosen
        beyond = "" if best == self.chosen else f", which is not {self.min_speedup:g} times beyond the noise"
        return f"{turns}: {best} is {self.ratio(best)} as {self.plain}{beyond}"


def milliseconds(seconds: float) -> str:
    """A time in milliseconds, to three digits."""
    value = 1000 * seconds
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def fastest(
    ways: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 10.0,
    min_speedup: float = MIN_SPEEDUP,
    prepare: Callable[[str], object] = lambda name: None,
    device: torch.device | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Trial:
    """Try ways to do the same, the plain one first; choose that unless another is faster beyond the noise.

    Each is called once, untimed, to set itself up, and then once per turn, every turn in another order, so that a
    machine that grows slower or faster meets all alike. Ways are compared by the ``ratio`` of their times in the same
    turns. One that cannot be ``min_speedup`` times as fast as the plain one any more, or not SLIGHTly faster than the
    best, takes part no longer, and the trial ends when one is left that is so for sure, or none. Otherwise it ends with
    the last turn that fits into ``seconds`` of turns; then a way is chosen that is faster than the plain one for sure,
    and ``min_speedup`` times as fast by the value of its ratio. Nothing is tried where not one turn would fit.

    ``prepare(name)`` is called before each call, untimed. A call ends when what it left to the ``device`` has ended.
    ``clock`` tells the time in seconds.
    """

    def call(name: str) -> float:
        prepare(name)
        wait_for(device)
        start = clock()
        ways[name]()
        wait_for(device)
        return clock() - start

    race = _Race([*ways], min_speedup)
    turn = len(ways) * call(race.plain)
    if len(ways) == 1 or turn > seconds:
        return race.result(ended=True)
    for name in race.racing:
        call(name)
    begin = clock()
    while race.racing and not race.sure and clock() - begin + turn <= seconds:
        start = clock()
        for name in race.order():
            race.timed[name].append(call(name))
        race.drop()
        # The next turn has no more ways.
        turn = clock() - start
    return race.result(ended=True)


class _Race:
    """A trial in progress: the times so far, and the ways that still may win, without the plain one."""

    def __init__(self, ways: list[str], min_speedup: float) -> None:
        self.plain, *self.racing = ways
        self.min_speedup = min_speedup
        self.timed: dict[str, list[float]] = {name: [] for name in ways}

    def order(self) -> list[str]:
        """Who is timed in the next turn, and in which order: each comes first in turn, and then all backwards."""
        turns, names = len(self.timed[self.plain]), [self.plain, *self.racing]
        round_, first = divmod(turns, len(names))
        names = [*names[first:], *names[:first]]
        return names[::-1] if round_ % 2 else names

    def drop(self) -> None:
        """Let those go that cannot win any more."""
        trial = self.result()
        self.racing = [name for name in self.racing if trial.ratio(name).high >= self.min_speedup]
        self.racing = [n for n in self.racing if n == self.best or trial.ratio(n, self.best).high >= SLIGHT]

    @property
    def best(self) -> str:
        """Of those that may win, the fastest so far."""
        trial = self.result()
        return max(self.racing, key=lambda name: trial.ratio(name).value)

    @property
    def sure(self) -> bool:
        """Whether one is left, and is fast enough beyond doubt."""
        return (
            len(self.racing) == 1
            and bool(self.timed[self.plain])
            and (self.result().ratio(self.racing[0]).low >= self.min_speedup)
        )

    def result(self, ended: bool = False) -> Trial:
        """What was measured, and at the end what is chosen."""
        trial = Trial(self.plain, {name: tuple(v) for name, v in self.timed.items()}, self.plain, self.min_speedup)
        if not (ended and self.racing and trial.turns):
            return trial
        found = trial.ratio(self.best)
        faster = found.low > 1 and found.value >= self.min_speedup
        return replace(trial, chosen=self.best) if faster else trial
