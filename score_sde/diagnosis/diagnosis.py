"""The diagnosis: what is wrong, in words, with the remedy; docs/check.md has where the limits come from."""

from score_sde.diagnosis.causes import (
    INSENSITIVE,
    Finding,
    disagreeing,
    ignored_time,
    undertrained,
    wrong_config,
    wrong_range,
    young_average,
)
from sde.training.audit import MAX_PRIOR_MISMATCH

SIGNIFICANT_STDERRS = 3.0
"""Standard errors that a difference of errors must be, to count."""
MIN_CONDITION_ITEMS = 40
"""Items with another condition below which nothing is said of conditions."""
MEMORIZED_LOSS_RATIO, COPIED_DISTANCE_RATIO = 0.75, 0.5
"""Training error over held-out error, and samples' distance to the training items over that of held-out items, below
which the model has memorized."""
MAX_MEAN_SHIFT, MAX_STD_RATIO, MIN_STDERRS = 0.25, 1.25, 4.0
"""Of samples: shift of a mean in standard deviations of the data, factor between standard deviations, and how many
standard errors either must be to count."""
MAX_LAW_RATIO = 2.0
"""Standard deviation of posterior means over that of the data above which they have left the data's law."""
MAX_NEAREST_RATIO = 1.3
"""Samples' distance to the training items, over that of held-out items, above which they are no data."""


def diagnose(m: dict) -> list[Finding]:
    """The faults in measurements ``m``, as ``modes.check.measure`` returns them, the ones that explain others first.

    Of faults that spoil every further measurement, only the first is named: mended, it shows the next.
    """
    found = [wrong_config(m)]
    spoiling = next((f for f in (wrong_range(m), ignored_time(m), young_average(m), undertrained(m)) if f), None)
    if spoiling:
        found += [spoiling, no_dropout(m)]
        # At these levels alone a network may be worse than the filter.
        found += [off_posterior_means(m)] if spoiling.fault == "undertrained" else []
    else:
        labels = ignored_condition(m) or shuffled_labels(m)
        found += [labels, no_dropout(m) or untrained_null(m), memorized(m), None if labels else off_samples(m)]
        found += [off_posterior_means(m)]
    return [finding for finding in [*found, wide_prior(m)] if finding]


def ignored_condition(m: dict) -> Finding | None:
    change = m["sensitivity"].get("other")
    if change is None or change >= INSENSITIVE or not m["conditions"]["items"]:
        return None
    return Finding(
        "network ignores its condition",
        f"with another item's condition the network changes its output by {change:.1e} of its size",
        "use the condition in the network's forward, or train with config.model.conditional=False",
    )


def shuffled_labels(m: dict) -> Finding | None:
    conditions = m["conditions"]
    if not conditions or conditions["items"] < MIN_CONDITION_ITEMS:
        return None
    gain, error = conditions["gain"]
    if gain > SIGNIFICANT_STDERRS * error:
        return None
    own, other, none = (conditions["error"][key] for key in ("own", "other", "none"))
    worse = ", and more than none, so that they name other classes" if m["null_trained"] and own > 1.02 * none else ""
    return Finding(
        "labels shuffled",
        f"held-out items are denoised no better under their own condition than under another item's (error {own:.3f} "
        f"and {other:.3f}, the own one better for {conditions['wins']:.0%}){worse}",
        "look at the order of items and of their labels or captions in the data, and whether the classes are still "
        "numbered as in training",
    )


def no_dropout(m: dict) -> Finding | None:
    if not m["conditional"] or m["null_trained"]:
        return None
    return Finding(
        "trained without dropout",
        "the condition was never left out in training, so that there is no unconditional branch: --labels none and "
        "--guidance_scale other than 1 are refused",
        "train with config.training.cond_dropout=0.1, or guide by --classifier_scale, --negative_labels or "
        "--autoguidance",
    )


def untrained_null(m: dict) -> Finding | None:
    conditions = m["conditions"]
    if not conditions or conditions["items"] < MIN_CONDITION_ITEMS:
        return None
    (gain, stderr), error = conditions["gain_of_none"], conditions["error"]
    if gain >= -SIGNIFICANT_STDERRS * stderr:
        return None
    return Finding(
        "unconditional branch untrained",
        f"without a condition items are denoised worse than with another item's (error {error['none']:.3f} and "
        f"{error['other']:.3f}), though the model file says that the condition was left out at times",
        "train with config.training.cond_dropout=0.1; until then use --guidance_scale 1",
    )


def memorized(m: dict) -> Finding | None:
    training, held_out = (m["error"][name] for name in ("training", "averaged"))
    noise = sum(m["error_stderr"][name] ** 2 for name in ("training", "averaged")) ** 0.5
    near, said = m["samples"]["nearest"], []
    if training < MEMORIZED_LOSS_RATIO * held_out and held_out - training > SIGNIFICANT_STDERRS * noise:
        said.append(f"the error of training items is {training / held_out:.2f} times that of held-out ones")
    if near is not None and near < COPIED_DISTANCE_RATIO:
        said.append(f"samples are {near:.2f} times as far from the nearest training item as held-out ones")
    if not said:
        return None
    return Finding(
        "memorized", " and ".join(said), "train for fewer steps, with more data, dropout or a smaller network"
    )


def off_samples(m: dict) -> Finding | None:
    samples = m["samples"]
    said = []
    columns = ("mean", "std", "data_mean", "data_std", "mean_stderr", "std_stderr")
    for channel, values in enumerate(zip(*(samples[key] for key in columns), strict=True)):
        mean, std, data_mean, data_std, mean_error, std_error = values
        if abs(mean - data_mean) > max(MAX_MEAN_SHIFT * data_std, MIN_STDERRS * mean_error):
            said.append(f"channel {channel} has mean {mean:.3g}, the data {data_mean:.3g}")
        far = std > MAX_STD_RATIO * data_std or data_std > MAX_STD_RATIO * std
        if far and abs(std - data_std) > MIN_STDERRS * std_error:
            said.append(f"channel {channel} has standard deviation {std:.3g}, the data {data_std:.3g}")
    if samples["nearest"] is not None and samples["nearest"] > MAX_NEAREST_RATIO:
        said.append(f"the median is {samples['nearest']:.2f} times as far from training items as held-out items are")
    if not said:
        return None
    more = f" (and {len(said) - 3} more)" if len(said) > 3 else ""
    return Finding(
        "samples off",
        f"of {samples['count']} samples {'; '.join(said[:3])}{more}",
        "train for more steps or a wider range of noise (config.training.time_distribution), and sample with more "
        "steps",
    )


def off_posterior_means(m: dict) -> Finding | None:
    levels = m["posterior_means"]
    off = [level for level in levels if level["std"] > MAX_LAW_RATIO * level["data_std"]]
    if not off:
        return None
    worst = max(off, key=lambda level: level["std"])
    pairs = zip(m["samples"]["std"], m["samples"]["data_std"], strict=True)
    wide = max((std / data_std for std, data_std in pairs if data_std > 0), default=1.0)
    # Of an undertrained model samples are no finding of their own, and these may be lost.
    lost = f"; of samples a channel is spread {wide:.3g} times as far as the data" if wide > MAX_STD_RATIO else ""
    return Finding(
        "posterior mean off",
        f"at {len(off)} of {len(levels)} noise levels, sigma/alpha from {off[-1]['noise_level']:.3g} to "
        f"{off[0]['noise_level']:.3g}, the posterior means are spread more than the data, which no posterior mean is: "
        f"their standard deviation is {worst['std']:.3g} at {worst['noise_level']:.3g}, that of the data "
        f"{worst['data_std']:.3g}, in model units. Steps and likelihood multiply them by alpha; restoring and "
        f"guidance at the denoised point read them as data{lost}",
        "--mode restore begins below these levels where it can; train longer, or with config.model.parametrization=v "
        "or edm, which bound them",
    )


def wide_prior(m: dict) -> Finding | None:
    lower, upper = m["prior"]
    # Of two schedules it is not known which one is meant.
    if lower <= MAX_PRIOR_MISMATCH or disagreeing(m, "sde."):
        return None
    return Finding(
        "prior mismatch",
        f"between {lower:.1e} and {upper:.1e} nats per dimension lie between noised data at t_max and the prior that "
        "sampling starts from",
        "train with a larger beta_max or sigma_max in config.sde",
    )
