"""Prefetching: values of steps, computed ahead by threads."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
P = TypeVar("P")


class Prefetch(Generic[T]):
    """``fetch(step)`` of consecutive steps, computed in threads before it is asked for.

    ``fetch`` must depend on the step alone; ``workers`` threads call it, or ``get`` itself with 0. At most ``ahead``
    values wait or are in the making beside the one that was asked for, by default two per worker, and none from the
    step ``end`` on. Threads do, without a copy of what they read, because decoding images and copying arrays leave
    Python's lock.

    A context manager: leaving it drops what was not asked for and ends the threads.
    """

    def __init__(
        self, fetch: Callable[[int], T], workers: int, ahead: int | None = None, end: int | None = None
    ) -> None:
        if workers < 0:
            raise ValueError(f"workers = {workers}: needs zero, to read in the main thread, or more")
        self.fetch, self.end = fetch, end
        self.ahead = 2 * workers if ahead is None else ahead
        self._threads = ThreadPoolExecutor(workers, "prefetch") if workers else None
        self._values: dict[int, Future[T]] = {}

    def get(self, step: int) -> T:
        """fetch(step), and the next steps begun. Raises what ``fetch`` raised for this step."""
        if self._threads is None:
            return self.fetch(step)
        last = step + self.ahead if self.end is None else min(step + self.ahead, self.end - 1)
        wanted = range(step, max(last, step) + 1)
        for old in self._values.keys() - set(wanted):
            self._values.pop(old).cancel()
        for new in wanted:
            if new not in self._values:
                self._values[new] = self._threads.submit(self.fetch, new)
        return self._values.pop(step).result()

    def ready(self, step: int) -> bool:
        """Whether the step was begun and is done, so that ``get`` would not wait for it."""
        return step in self._values and self._values[step].done()

    def forget(self) -> None:
        """Drop what was computed ahead, as where ``fetch`` has become another function of the step."""
        for step in [*self._values]:
            self._values.pop(step).cancel()

    def close(self) -> None:
        """Drop what was not asked for, and wait for the threads to end."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self._values.clear()

    def __enter__(self) -> "Prefetch[T]":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def in_order(function: Callable[[P], T], parts: Sequence[P], workers: int) -> Iterator[T]:
    """function(part) of every part, in order, computed by ``workers`` threads."""
    with Prefetch(lambda i: function(parts[i]), workers, end=len(parts)) as values:
        for i in range(len(parts)):
            yield values.get(i)
