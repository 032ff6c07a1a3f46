"""Interrupts: signals that end a training run in good order."""

import signal


class Interrupts:
    """Within this context the first SIGINT or SIGTERM is remembered in ``name``, for the loop to end in good order; a
    second SIGINT interrupts at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.name: str | None = None

    def __enter__(self) -> "Interrupts":
        self._before = {number: signal.signal(number, self._receive) for number in self.SIGNALS}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        if self.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
