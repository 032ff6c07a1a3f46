"""Causes: faults that spoil every other measurement, in description, data, sense of time, average and training."""

from typing import NamedTuple

MAX_SIZE_RATIO = 1.05
"""Factor between root mean squares of the data, then and now, above which they are other data."""
INSENSITIVE = 1e-3
"""Relative change of the network's output below which it ignores an input."""
UNTRAINED_RATIO = 0.3
"""Size of the output relative to that of the raw weights below which weights are hardly trained."""
LAGGING_RATIO = 1.05
"""Held-out error of the averaged weights over that of the raw ones above which the average lags behind."""
LINEAR_RATIO = 1.0
"""Held-out error over that of the linear filter above which a network is undertrained."""
SILENT_OUTPUT = 1e-3
"""Size of the output, about 1 in every parametrization, below which a network does nothing yet."""


class Finding(NamedTuple):
    """A fault's name, what was measured, and what to do."""

    fault: str
    evidence: str
    remedy: str


def disagreeing(m: dict, section: str = "") -> list[str]:
    """The keys of a section in which the config and the model file differ."""
    return [one["key"] for one in m["disagreements"] if one["key"].startswith(section)]


def wrong_config(m: dict) -> Finding | None:
    if not m["disagreements"]:
        return None
    keys = disagreeing(m)
    said = "; ".join(
        f"{one['key']} is {one['config']!r} there, {one['model']!r} in it" for one in m["disagreements"][:4]
    )
    held = [one for one in m["disagreements"] if one["checkpoint"] is not None]
    witness, remedy, changed = "", "put the values of the model file back into config.json", "config.json was"
    if keys == ["num_classes"]:
        # The number of classes is that of the labels.
        remedy, changed = f"{remedy}, or use the data of training (config.data)", "config.json or the data were"
    if held and all(one["checkpoint"] == one["model"] for one in held):
        witness = f"; the checkpoint agrees with the model file, so {changed} changed after training"
    elif held and all(one["checkpoint"] == one["config"] for one in held):
        witness = "; the checkpoint agrees with config.json, so the model file is another run's"
        remedy = "delete the model file and give the training command again, which writes it from the checkpoint"
    return Finding(
        "wrong schedule in the config" if disagreeing(m, "sde.") else "config of another model",
        f"config.json describes another model than the model file: {said}{witness}. Sampling goes by the model file, "
        "training and the classifier go by config.json",
        remedy,
    )


def wrong_range(m: dict) -> Finding | None:
    model, data = m["range"]["model"], m["range"]["data"]
    then, now = m["range"]["sigma_data"]
    if model == data and (not m["range"]["measured"] or 1 / MAX_SIZE_RATIO < then / now < MAX_SIZE_RATIO):
        return None
    if model["num_levels"] != data["num_levels"]:
        said = f"the model was trained on {_levels(model)}, the data have {_levels(data)}"
    elif model != data:
        said = f"the model takes {_affine(model)}, the data now come with {_affine(data)}"
        if len(model["scale"]) == len(data["scale"]):
            factor = max((b / a for a, b in zip(model["scale"], data["scale"], strict=True)), key=lambda r: abs(r - 1))
            said += f": their scale is {factor:.3g} times the model's" if factor != 1 else ": another zero"
    else:
        said = (
            f"in model units the data have a root mean square of {now:.3g}, and had {then:.3g} when the model was "
            f"made, a factor of {now / then:.3g}"
        )
    return Finding(
        "value range mismatch",
        said + "; samples come in the units of the model",
        "use the data of training (config.data.root, .num_levels, .channels), or train a new model on these",
    )


def ignored_time(m: dict) -> Finding | None:
    change, output, raw = (m["sensitivity"][key] for key in ("time", "output", "raw_output"))
    # Fresh weights depend on nothing either; their output is small beside that of trained ones.
    if change >= INSENSITIVE or (raw and output < UNTRAINED_RATIO * raw) or output < SILENT_OUTPUT:
        return None
    return Finding(
        "network ignores time",
        f"told another noise level, the network changes its output by {change:.1e} of its size",
        "use c_noise in the network's forward, or restore the weights of its noise embedding, and train again",
    )


def young_average(m: dict) -> Finding | None:
    about, error = m["averaging"], m["error"]
    # With conditions and without: wrong conditions alone do not make an average bad.
    kinds = [kind for kind in ("", "_none") if about and error[f"raw{kind}"] is not None]
    if not kinds or any(error[f"averaged{kind}"] <= LAGGING_RATIO * error[f"raw{kind}"] for kind in kinds):
        return None
    lag = (
        f"its held-out error is {error['averaged']:.3f}, that of the raw weights {error['raw']:.3f}, from which it "
        f"is {about['from_raw']:.0%} away"
    )
    if about["from_checkpoint"] > 1e-6 or about["updates"] < m["step"]:
        return Finding(
            "EMA too young",
            f"{lag}; it is not the average that training kept over {m['step']} steps ("
            + (
                f"{about['from_checkpoint']:.0%} from the checkpoint's)"
                if about["from_checkpoint"] > 1e-6
                else f"it has seen {about['updates']} of them)"
            ),
            "delete the model file and give the training command again, which writes it from the checkpoint"
            if about["updates"] == m["step"]
            else "train on, or sample from an average of --mode ema",
        )
    return Finding(
        "EMA too young",
        f"{lag}; it averages weights that are {about['mean_age']:,.0f} steps old on average, of {m['step']:,}",
        "train for more steps, or with a smaller config.training.ema_decay",
    )


def undertrained(m: dict) -> Finding | None:
    error, linear, output = best(m), m["error"]["linear"], m["sensitivity"]["output"]
    if error <= LINEAR_RATIO * linear and output >= SILENT_OUTPUT:
        return None
    history = [loss for loss in m["held_out_losses"] if loss is not None]
    remedy = "train for more steps, or with another config.training.lr"
    if m["step"] and m["step"] < m["steps"]:
        remedy = f"training is at step {m['step']} of {m['steps']}: give the training command again"
    elif len(history) > 1:
        last = 1 - history[-1] / history[len(history) // 2]
        settled = "try a larger network or another config.training.lr" if last < 0.02 else "train for more steps"
        remedy = f"over the last half of the run the held-out loss fell by {last:.0%}: {settled}"
    return Finding(
        "undertrained",
        f"its held-out error is {error:.3f}, that of the best linear filter {linear:.3f}, which knows no more of the "
        "data than their mean and covariance" + f"; its output is near 0, {output:.1g}" * (output < SILENT_OUTPUT),
        remedy,
    )


def best(m: dict) -> float:
    """The held-out error with conditions or without, the smaller: wrong conditions do not make a network bad."""
    return min(error for error in (m["error"]["averaged"], m["error"]["averaged_none"]) if error is not None)


def _levels(transform: dict) -> str:
    return f"{transform['num_levels']} levels" if transform["num_levels"] else "continuous values"


def _affine(transform: dict) -> str:
    channel = " in channel 0" * (len(transform["scale"]) > 1)
    return f"(data - {transform['shift'][0]:.4g}) / {transform['scale'][0]:.4g}{channel}"
