"""--tolerance: steps that a sampler chooses for each sample, in place of their number."""

import math

from absl import flags

from samplers import FLOW_MAP_SAMPLERS, SAMPLERS
from score_sde.config.config import override, pick
from score_sde.config.schema import CHOICES_OF_SAMPLER

USUAL = "adams"
"""The sampler of --tolerance unless --sampler names another, or the run's own chooses its steps."""


def able() -> dict[str, tuple[str, ...]]:
    """The samplers that choose their own steps, by name, with the options that say how right they are to be."""
    kinds = {name: getattr(kind, "tolerances", ()) for name, kind in SAMPLERS.items()}
    return {name: options for name, options in kinds.items() if options}


def overrides_of(options: flags.FlagValues, overrides: list[str], own: str) -> list[str]:
    """What --tolerance stands for, as ``--config.sampler.KEY=VALUE``, in a run whose sampler is ``own``. Raises
    ValueError for a number that is no tolerance, and beside flags that contradict it."""
    value = options.tolerance
    if value is None:
        return []
    flag = f"--tolerance={value:g}"
    if not 0 < value < math.inf:
        raise ValueError(f"{flag}: needs a finite number above 0, as in 0.01")
    for other in ("steps", "grid"):
        if options[other].value is not None:
            raise ValueError(
                f"{flag} and --{other}={options[other].value}: a sampler that keeps a tolerance chooses its own steps; "
                "leave out one of them"
            )
    if own in FLOW_MAP_SAMPLERS:
        raise ValueError(f"{flag}: a student jumps in as many calls as it was distilled for, and has no error to keep; "
                         "leave it out")  # fmt: skip
    named = options.sampler or override(overrides, "sampler.name")
    name = pick("--sampler", named, CHOICES_OF_SAMPLER) if named else own if own in able() else USUAL
    if name not in able():
        raise ValueError(f"{flag}: --sampler {name} makes as many steps as it is told; take {', '.join(able())}")
    for key in able()[name]:
        if override(overrides, f"sampler.{key}") is not None:
            raise ValueError(f"{flag} and --config.sampler.{key}: both say how right {name} is to be; leave out one")
    return [f"--config.sampler.name={name}", *(f"--config.sampler.{key}={value!r}" for key in able()[name])]
