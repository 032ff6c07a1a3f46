"""Progress where there is no terminal: few whole lines; on one, tqdm's bar."""

import io

import pytest

from samplers.progress import LOG_INTERVAL, Progress, shows_bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """The time as tqdm sees it, in a list of one number."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def worked(clock, file, steps, seconds, between=lambda bar: None, **options):
    with Progress(total=steps, file=file, desc="work", unit="step", **options) as bar:
        for _ in range(steps):
            clock[0] += seconds
            bar.update(1)
            between(bar)
    return file.getvalue()


def test_a_line_every_half_minute(clock):
    """1000 steps of 1/8 s: at 30, 60, 90 and 120 s, and at the end."""
    text = worked(clock, io.StringIO(), 1000, 0.125)
    assert "\r" not in text
    assert text.splitlines() == [
        "work: 24%, 240 of 1000 in 00:30, 01:35 left, 8.00step/s",
        "work: 48%, 480 of 1000 in 01:00, 01:05 left, 8.00step/s",
        "work: 72%, 720 of 1000 in 01:30, 00:35 left, 8.00step/s",
        "work: 96%, 960 of 1000 in 02:00, 00:05 left, 8.00step/s",
        "work: 100%, 1000 of 1000 in 02:05, 00:00 left, 8.00step/s",
    ]


def test_slow_steps_are_told_one_by_one(clock):
    lines = worked(clock, io.StringIO(), 3, 2 * LOG_INTERVAL).splitlines()
    assert [line.partition(" of")[0] for line in lines] == ["work: 33%, 1", "work: 67%, 2", "work: 100%, 3"]


def test_short_work_says_nothing(clock):
    assert worked(clock, io.StringIO(), 1000, 0.02) == ""


def test_what_is_written_between_repeats_no_line(clock):
    file = io.StringIO()
    text = worked(clock, file, 1000, 0.125, lambda bar: bar.n % 100 or bar.write(f"note {bar.n}", file=file))
    assert text.count("work:") == 5
    assert text.count("note") == 10
    assert "\r" not in text


def test_a_bar_that_leaves_nothing(clock):
    assert worked(clock, io.StringIO(), 1000, 0.125, leave=False).count("\n") == 4
    assert worked(clock, io.StringIO(), 1000, 0.125, disable=True) == ""


def test_a_terminal_has_a_bar(clock):
    text = worked(clock, Terminal(), 1000, 0.125)
    assert text.count("\r") > 100
    assert "%|" in text
    assert not shows_bars(io.StringIO())
    assert not shows_bars(object())
    assert shows_bars(type("OutStream", (), {"__module__": "ipykernel.iostream"})())
