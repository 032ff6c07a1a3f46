"""Guidance at several scales: the options at each of them."""

from collections.abc import Sequence

from score_sde.run.guides import GuidanceOptions

NEUTRAL = {"guidance_scale": 1.0, "classifier_scale": 0.0}
"""The flags of scales, and where each does nothing."""


def at_each_scale(values: dict) -> tuple[GuidanceOptions, ...]:
    """The options at each of several scales. ``values`` are those of flags by name, of which each of NEUTRAL is a tuple
    of numbers and one of them may hold several.

    What limits guidance is left out at the one of several scales that guides nothing. Raises ValueError where both hold
    several, and as GuidanceOptions does.
    """
    scales = {name: values[name] for name in NEUTRAL if name in values}
    several = [name for name, own in scales.items() if len(own) > 1]
    if len(several) > 1:
        given = " and ".join(f"--{name}={_listed(own)}" for name, own in scales.items())
        raise ValueError(f"{given}: one of them can have several scales; give the other a single one")
    found = []
    for i in range(max(map(len, scales.values()), default=1)):
        own = values | {name: given[i if name in several else 0] for name, given in scales.items()}
        idle = []
        if several == ["guidance_scale"] and own["guidance_scale"] == 1:
            idle += ["negative_labels", "weak"]
        if several and all(own.get(name, neutral) == neutral for name, neutral in NEUTRAL.items()):
            idle += ["guidance_interval", "guidance_rescale"]
        found.append(GuidanceOptions(**{name: value for name, value in own.items() if name not in idle}))
    return tuple(found)


def at_one_scale(values: dict) -> GuidanceOptions:
    """The options of ``at_each_scale`` for what takes a single scale. Raises ValueError where there are several."""
    for name in NEUTRAL:
        if len(values.get(name, ())) > 1:
            raise ValueError(
                f"--{name}={_listed(values[name])}: takes a single scale here; --mode sample and guidance_sweep take "
                "several"
            )
    return at_each_scale(values)[0]


def varied(guidances: Sequence[GuidanceOptions]) -> tuple[str, list[float]]:
    """The flag in whose scale several options differ, and the scale of each."""
    values = {name: [getattr(options, name) for options in guidances] for name in NEUTRAL}
    return next((name, scales) for name, scales in values.items() if len({*scales}) > 1)


def _listed(scales: Sequence[float]) -> str:
    return ",".join(f"{scale:g}" for scale in scales)
