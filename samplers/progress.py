"""Progress: a bar on a terminal, and elsewhere, as in a log file, a line every half minute."""

import sys
from typing import Any

from tqdm import tqdm

LOG_INTERVAL = 30.0
"""Seconds between lines where there is no terminal; shorter work says nothing there."""
LINE = "{desc}: {percentage:.0f}%, {n_fmt} of {total_fmt} in {elapsed}, {remaining} left, {rate_fmt}{postfix}"


class Progress(tqdm):
    """``tqdm``, which on what is no terminal writes whole lines, and few."""

    disable: bool

    def __init__(self, *args, **options: Any) -> None:
        self.in_lines = not shows_bars(options.get("file") or sys.stderr)
        if self.in_lines:
            interval = {"mininterval": LOG_INTERVAL, "maxinterval": 2 * LOG_INTERVAL, "delay": LOG_INTERVAL}
            options |= {**interval, "miniters": 1, "bar_format": LINE, "dynamic_ncols": False}
        super().__init__(*args, **options)

    @staticmethod
    def status_printer(file):
        """A function that shows a state: over the one before, or as a line."""
        if shows_bars(file):
            return tqdm.status_printer(file)

        def show(line: str) -> None:
            # tqdm pads its numbers, for bars.
            file.write(f"{' '.join(line.split())}\n")
            file.flush()

        return show

    def clear(self, *args, **options) -> None:
        """Lines stay."""
        if not self.in_lines:
            super().clear(*args, **options)

    def refresh(self, nolock: bool = False, lock_args=None):
        """Show the state, but a line not once more behind whatever else was written."""
        return None if self.in_lines and nolock else super().refresh(nolock, lock_args)

    def close(self) -> None:
        """The last state, where there was one before."""
        if not self.in_lines:
            super().close()
        elif not self.disable:
            if self.leave and self.last_print_t >= self.start_t + self.delay and self.n != self.last_print_n:
                self.display()
            self.disable = True
            self._decr_instances(self)


def shows_bars(file) -> bool:
    """Whether lines that are written over can be seen: on terminals, and in notebooks."""
    terminal = getattr(file, "isatty", lambda: False)
    return bool(terminal()) or type(file).__module__.startswith("ipykernel")
