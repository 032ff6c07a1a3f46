"""The log of a training run, its numbers: metrics.jsonl, and TensorBoard where it is asked for."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from score_sde.config.migration import current_line
from sde.files import finite, write_whole


class Metrics:
    """Lines {"step": n, ...} in a file, one JSON object each, with null for numbers that are not finite.

    With ``tensorboard``, their numbers are also events in ``tensorboard/<stem of the file>/`` beside it, under their
    keys joined by "/". Raises ValueError where TensorBoard is not installed.
    """

    def __init__(self, path: Path, tensorboard: bool = False) -> None:
        self.path = path
        self._writer_class = summary_writer() if tensorboard else None
        self._writer: Any = None
        self._purge_step: int | None = None

    def record(self, line: dict) -> None:
        """Append a line, and leave it in the file before returning."""
        line = finite(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._writer_class:
            if self._writer is None:
                folder = self.path.parent / "tensorboard" / self.path.stem
                self._writer = self._writer_class(str(folder), purge_step=self._purge_step)
            for name, value in _scalars(line):
                if name != "step":
                    self._writer.add_scalar(name, value, line["step"])
            self._writer.flush()

    def read(self) -> list[dict]:
        """All lines; none where there is no file yet."""
        return [line for _, line in self._lines()]

    def truncate(self, step: int) -> None:
        """Drop the lines after a step, and those that a crash cut short, for a run that goes on from there."""
        self.close()
        self._purge_step = step + 1
        if self.path.exists():
            write_whole(self.path, b"".join(raw for raw, line in self._lines() if line["step"] <= step))

    def close(self) -> None:
        """Close the event file; a later line opens a new one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _lines(self) -> Iterator[tuple[bytes, dict]]:
        content = self.path.read_bytes() if self.path.exists() else b""
        for raw in content.splitlines(keepends=True):
            try:
                # Python's JSON has NaN and Infinity, which JSON has not.
                line = json.loads(raw.removeprefix(codecs.BOM_UTF8), parse_constant=lambda name: None)
            except ValueError:
                continue
            if raw.endswith(b"\n") and isinstance(line, dict) and isinstance(line.get("step"), int):
                yield raw, current_line(line)


def _scalars(value, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _scalars(inner, f"{name}/{key}" if name else str(key))
    elif isinstance(value, int | float):
        yield name, value


def summary_writer():
    """The class that writes TensorBoard's events. Raises ValueError where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "config.training.tensorboard = True needs TensorBoard, which is not installed: "
            "pip install 'score-sde[tensorboard]', or set it to False"
        ) from None
    return SummaryWriter
