"""Migration: config files, plans and numbers of earlier versions, under the names of today.

What a run folder holds is read silently. What a person gives is refused by a sentence with the new name.
"""

from collections.abc import Callable, Mapping
from typing import Any

from samplers import SAMPLERS
from samplers.planning.plan import FOUND
from score_sde.config.component import options_of
from sde.checkpoint.migration import NETWORK_OPTIONS, current_network, renamed

TRAINING = {
    "accumulate": "gradient_accumulation",
    "times": "time_distribution",
    "clip": "max_grad_norm",
    "ema": "ema_decay",
    "more_ema": "extra_ema_decays",
    "power_ema": "power_ema_stds",
    "warmup": "warmup_steps",
}
KEYS: dict[str, dict[str, str]] = {
    "data": {
        "name": "toy",
        "factor": "superres_factor",
        "size": "resolution",
        "mode": "color_mode",
        "layout": "channels",
        "levels": "num_levels",
    },
    "training": {**TRAINING, "weighting": "loss_weighting", "layout": "memory_format"},
    "classifier": TRAINING,
}
"""By section, the old and new names of its keys; those of networks are in ``sde.checkpoint.migration``."""

CHANNELS = {"channels_first": "first", "channels_last": "last", "no_channels": "none"}
"""Values of config.data.channels."""

RENAMED_SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "eab": ("deis", {}),
    "sde": ("reverse_sde", {}),
    "dpmpp_sde": ("sa_solver", {}),
    "seeds": ("sa_solver", {"solver_order": 1, "prediction": "noise"}),
}
"""Old names of samplers: the new one, and the options that go with it where they are not the defaults."""

RENAMED_OPTIONS = {
    ("deis", "order"): "solver_order",
    ("dpmpp", "order"): "solver_order",
    ("unipc", "points"): "solver_order",
    ("sa_solver", "points"): "solver_order",
    ("pc", "corrections"): "corrector_steps",
    ("langevin", "corrections"): "corrector_steps",
}
"""Options that samplers, by their new names, had under another name once."""

PLAN_FLAGS = {"autoguidance": "weak"}
"""Flags of guidance by their new names, and the old ones, under which the hashes that name plans know them."""


def current_config(values: Mapping) -> dict:
    """The values of a config.json, as of today."""
    found = {key: renamed(value, KEYS.get(key, {})) if isinstance(value, dict) else value
             for key, value in values.items()}  # fmt: skip
    for key in ("model", "classifier"):
        if isinstance(found.get(key), dict) and isinstance(found[key].get("network"), dict):
            found[key]["network"] = current_network(found[key]["network"])
    data = found.get("data")
    if isinstance(data, dict) and data.get("channels") in CHANNELS:
        data["channels"] = CHANNELS[data["channels"]]
    if isinstance(found.get("sampler"), dict):
        found["sampler"] = current_sampler(found["sampler"], SAMPLERS)
    return found


def current_sampler(sampler: Mapping, table: Mapping[str, Callable]) -> dict:
    """A sampler of ``table``, its ``name`` and options, as of today."""
    old = sampler.get("name", "")
    name, extra = (old, {}) if old in table else RENAMED_SAMPLERS.get(old, (old, {}))
    known = options_of(table[name]) if name in table else {}
    names = {before: now for (its, before), now in RENAMED_OPTIONS.items() if its == name and now in known}
    found = {**extra, **renamed(sampler, names)}
    return found | {"name": name} if "name" in sampler else found


def current_plan(record: dict) -> dict:
    """The record of a plan, as of today."""
    found = current_sampler({**record["options"], "name": record["sampler"]}, FOUND)
    return {**record, "sampler": found.pop("name"), "options": found}


def current_line(line: dict) -> dict:
    """A line of metrics.jsonl, as of today: sigma / alpha is the noise level, and not all items are images."""
    line = renamed(line, {"images_per_second": "items_per_second"})
    for key in ("by_noise", "accuracy_by_noise"):
        if isinstance(line.get(key), list):
            line = line | {key: [renamed(level, {"sigma": "noise_level"}) for level in line[key]]}
    return line


def new_key(path: str) -> str | None:
    """The new name of a config key, as config.training.ema_decay; None where the key never had another."""
    *section, key = path.removeprefix("config.").split(".")
    tables = [KEYS.get(".".join(section), {})]
    if section[-1:] == ["network"]:
        tables += NETWORK_OPTIONS.values()
    if section == ["sampler"]:
        tables += [{before: now} for (_, before), now in RENAMED_OPTIONS.items()]
    found = next((table[key] for table in tables if key in table), None)
    return None if found is None else ".".join(["config", *section, found])


def new_value(value: str) -> str | None:
    """The new name of a value that a person may still give, with the options that go with it, or None."""
    name, options = RENAMED_SAMPLERS.get(value, (CHANNELS.get(value), {}))
    return name and name + "".join(f", with --config.sampler.{key}={option}" for key, option in options.items())
