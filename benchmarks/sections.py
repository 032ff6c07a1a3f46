"""Sections of a benchmark of a device: what each finds, row by row, within its time."""

import gc
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

WHOLE = 360.0
"""Seconds of all sections together, where nothing else is asked: the sum of theirs."""

ENOUGH = 2.0
"""Seconds that must be left for a section to begin."""


SIZES = ("full", "small", "smallest")
"""For a GPU; for a trial on a CPU; for the tests, which run the sections of *right* every time."""


@dataclass(frozen=True)
class Setting:
    """Where it is measured, and in which of SIZES."""

    device: torch.device
    size: str = "full"

    def of(self, *values: Any) -> Any:
        """The value for this size, of those for SIZES in order; the last one is that of what is smaller, too."""
        return values[min(SIZES.index(self.size), len(values) - 1)]

    @property
    def backend(self) -> str:
        """That of torch.compile: on a trial the one that writes no code, which takes a compiler its time."""
        return self.of("inductor", "aot_eager")


@dataclass(frozen=True)
class Check:
    """An error and what is allowed of it; ``what`` was checked, one of the ``group`` that has a line of the table."""

    group: str
    what: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the error is a number within what is allowed."""
        return self.error <= self.allowed


class LeftOut(Exception):
    """Raised by a section that does not apply here, with the reason in a sentence."""


class OutOfTime(BaseException):
    """Raised in a section whose time is over. No Exception: what is interrupted might take that for its own."""


Row = Check | dict[str, Any] | str
"""What a section finds: a check, figures by the name of their column, or a sentence to stand below them."""


@dataclass(frozen=True)
class Section:
    """``run(setting)`` yields rows, for about ``seconds`` of the WHOLE."""

    run: Callable[[Setting], Iterator[Row]]
    seconds: float

    @property
    def title(self) -> str:
        """What it asks, the first sentence of the function's docstring."""
        return (self.run.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ").rstrip(".")


@dataclass
class Result:
    """What came of a section: "passed", "failed", "left out"; ``sentence`` says why, where it did not pass."""

    name: str
    title: str
    outcome: str = "passed"
    sentence: str = ""
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    trace: str = ""

    def record(self) -> dict:
        """As plain values, for JSON."""
        rows = [asdict(row) | {"passed": row.passed} if isinstance(row, Check) else row for row in self.rows]
        return {**{key: value for key, value in vars(self).items() if key != "rows"}, "rows": rows}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in what takes longer, where the system has an alarm clock."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def share(section: Section, later: Iterable[Section], left: float) -> float:
    """The seconds that a section may take of those that are left for it and the later ones: each has a part that is as
    large as its own ``seconds`` are, so that none is left out, and what one does not need is the others'."""
    return left * section.seconds / (section.seconds + sum(other.seconds for other in later))


def run(name: str, section: Section, setting: Setting, seconds: float) -> Result:
    """The section within so many seconds; whatever it raises is part of the result."""
    result, begin = Result(name, section.title), time.perf_counter()
    if seconds < ENOUGH:
        result.outcome, result.sentence = "failed", "no time was left: give more --seconds, or fewer --sections"
        return result
    try:
        # What compilers and peers warn of; what is wrong shows in the rows.
        with within(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for row in section.run(setting):
                result.rows.append(row)
        wrong = [row for row in result.rows if isinstance(row, Check) and not row.passed]
        if wrong:
            result.outcome = "failed"
            result.sentence = f"{len(wrong)} of {len(result.rows)} checks: " + "; ".join(
                f"{row.group}, {row.what}: {row.error:.1e}, allowed {row.allowed:.1e}" for row in wrong[:5]
            )
    except LeftOut as reason:
        result.outcome, result.sentence = "left out", str(reason)
    except OutOfTime:
        result.outcome = "failed"
        result.sentence = f"not done after its {seconds:.0f} seconds; the rows above are what it found until then"
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        result.outcome, result.sentence = "failed", f"{type(error).__name__}: {lines[0][:300]}"
        result.trace = traceback.format_exc()
    result.seconds = round(time.perf_counter() - begin, 2)
    # What it held of the device is the next one's.
    gc.collect()
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()
    return result
