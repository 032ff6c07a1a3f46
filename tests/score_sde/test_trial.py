"""Trials on simulated machines: a clock that moves with what is called, and noise of every kind."""

import numpy as np
import pytest
from scipy.stats import ttest_ind

from score_sde.run.trial import CONFIDENCE, SLIGHT, Trial, faster_of_two, fastest, milliseconds, ratio
from tests.oracles.machine import NOISES, Machine

TRIALS = 25


def chosen(true, noise, **options):
    """What is chosen on TRIALS machines."""
    return [Machine(true, NOISES[noise], seed).fastest(**options).chosen for seed in range(TRIALS)]


@pytest.mark.parametrize("noise", NOISES)
def test_of_equals_the_plain_one(noise):
    found = chosen({"plain": 0.05, "other": 0.05, "third": 0.05}, noise)
    assert found.count("plain") >= TRIALS - 1, found


@pytest.mark.parametrize("noise", NOISES)
def test_a_winner_is_found(noise):
    found = chosen({"plain": 0.065, "winner": 0.05, "loser": 0.1}, noise)
    assert found.count("winner") >= TRIALS - 3, found


@pytest.mark.parametrize("noise", NOISES)
def test_precisions_and_formats(noise):
    """The case that began this: 261 ms against 175 ms on a loaded machine, with formats that matter little."""
    found = chosen(
        {"float32": 0.261, "float32 last": 0.27, "bfloat16": 0.175, "bfloat16 last": 0.18}, noise, seconds=80
    )
    assert sum(name.startswith("bfloat16") for name in found) >= TRIALS - 1, found


def test_a_gain_below_the_least_is_none():
    assert set(chosen({"plain": 0.11, "other": 0.1}, "symmetric")) == {"plain"}
    assert set(chosen({"plain": 0.11, "other": 0.1}, "symmetric", min_speedup=1.02)) == {"other"}


def test_ends_when_decided():
    """Three pairs of turns are the fewest; a loser is gone after them, and of equal winners one."""
    machine = Machine({"plain": 0.2, "winner": 0.1, "equal": 0.1, "loser": 0.3})
    trial = machine.fastest()
    assert trial.chosen == "winner"
    assert {name: len(times) for name, times in trial.seconds.items()} == dict.fromkeys(machine.ways, 6)
    assert len(machine.calls) == 4 * 7
    assert trial.ratio("winner").value == pytest.approx(2)
    assert str(trial) == (
        "200 ms in plain, 100 ms in winner, 100 ms in equal, 300 ms in loser (6 turns): "
        "winner is 2 times as fast (98% sure of 2 to 2) as plain"
    )


def test_losers_go_early():
    noisy = Machine({"plain": 0.06, "winner": 0.05, "loser": 0.5}, NOISES["symmetric"], seed=1)
    trial = noisy.fastest(seconds=20, min_speedup=1.19)
    assert len(trial.seconds["loser"]) == 6 < len(trial.seconds["winner"]) == trial.turns


def test_orders():
    """Within a round each way comes first once, and the next round goes backwards."""
    machine = Machine({"a": 1.0, "b": 1.0, "c": 1.0})
    machine.fastest(seconds=18)
    turns = ["".join(machine.calls[i : i + 3]) for i in range(0, len(machine.calls), 3)]
    assert turns == ["abc", "abc", "bca", "cab", "cba", "acb", "bac"]


@pytest.mark.parametrize("seconds", [2.0, 5.0, 10.0])
@pytest.mark.parametrize("base", [0.01, 0.3, 1.0, 6.0])
def test_budget(seconds, base):
    """No turn goes beyond it, and where it has room for none nothing is set up."""
    machine = Machine({"plain": base, "other": base / 1.2, "third": base})
    trial = machine.fastest(seconds=seconds)
    turns = sum(sum(times) for times in trial.seconds.values())
    assert turns <= seconds
    if 3 * base > seconds:
        assert machine.calls == ["plain"]
        assert str(trial) == "too long in plain to try another way"
    elif trial.turns < 6:
        assert trial.chosen == "plain"
        assert str(trial).endswith("too few turns to tell speed from noise")


def test_one_way_is_not_tried():
    machine = Machine({"plain": 1.0})
    assert machine.fastest().chosen == "plain"


def test_setting_up_is_not_timed():
    """The first call of each, and what ``prepare`` does before every one."""
    machine = Machine({"plain": 0.2, "winner": 0.1})
    slow = {name: iter([5.0]) for name in machine.ways}

    def prepare(name):
        prepared.append(name)
        machine.now += 1.0

    def first_slow(name, way):
        way()
        machine.now += next(slow[name], 0.0)

    prepared = []
    ways = {name: lambda n=name, w=way: first_slow(n, w) for name, way in machine.ways.items()}
    trial = fastest(ways, seconds=100, prepare=prepare, clock=machine)
    assert trial.seconds == {"plain": pytest.approx([0.2] * 6), "winner": pytest.approx([0.1] * 6)}
    assert prepared == machine.calls


def test_ratio_is_yuens():
    """By scipy's test of two trimmed means, of which the other one is 0 for sure."""
    draw = np.random.default_rng(0)
    for turns in (6, 13, 22, 31):
        a, b = np.exp(draw.standard_t(3, (2, turns)))
        logs = np.log(faster_of_two(a)) - np.log(faster_of_two(b))
        test = ttest_ind(logs, np.zeros(50), equal_var=False, trim=0.2)
        found, wanted = ratio(a, b), test.confidence_interval(2 * CONFIDENCE - 1)
        assert np.log([found.low, found.high]) == pytest.approx([wanted.low, wanted.high])
        assert np.log(found.value) == pytest.approx((wanted.low + wanted.high) / 2)


def test_faster_of_two():
    assert list(faster_of_two([3.0])) == [3.0]
    assert list(faster_of_two([3.0, 2.0, 4.0])) == [2.0]
    assert list(faster_of_two([3.0, 2.0, 4.0, 5.0])) == [2.0, 4.0]
    assert list(faster_of_two([3.0, 2.0, 4.0, 5.0, 1.0])) == [2.0, 1.0]


def test_outliers_move_nothing():
    mine, theirs = [1.0] * 20, [1.5] * 20
    spoilt = [1.5] * 18 + [1000.0] * 2
    assert ratio(spoilt, mine) == ratio(theirs, mine)
    assert ratio(theirs, mine).value == pytest.approx(1.5)


def test_sentence_of_no_winner():
    trial = Trial("plain", {"plain": (0.1,) * 6, "other": (0.1 / SLIGHT,) * 6}, "plain")
    assert str(trial).endswith(
        "other is 1.05 times as fast (98% sure of 1.05 to 1.05) as plain, which is not 1.2 times beyond the noise"
    )


def test_milliseconds():
    assert [milliseconds(s) for s in (0.000123, 0.0123, 0.261, 12.3)] == ["0.123 ms", "12.3 ms", "261 ms", "12300 ms"]
