"""The modes of the command line: functions of a run whose keyword arguments are flags."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pkgutil import resolve_name

from score_sde.run.guides import GuidanceOptions
from score_sde.run.scales import at_each_scale, at_one_scale

GUIDANCE = tuple(field.name for field in fields(GuidanceOptions))
"""The flags that an argument ``guidance`` stands for; an argument ``guidances`` takes several scales."""


@dataclass(frozen=True)
class Mode:
    """``path`` is module:function, imported when it is needed. The function takes a run and keyword arguments, each the
    flag of its name; one that is not given leaves the function its own default. ``sections`` are those of a trained
    run's config that can be changed; a mode that trains has none and can change them all."""

    path: str
    sections: tuple[str, ...] = ()
    training: bool = False

    @property
    def function(self) -> Callable:
        """What the mode does: (run, **flags) -> the values of its last line."""
        return resolve_name(self.path)

    @property
    def defaults(self) -> dict:
        """The value of each flag of the function that is not given."""
        parameters = {**inspect.signature(self.function).parameters}
        if self._guidance and parameters.pop(self._guidance):
            parameters |= inspect.signature(GuidanceOptions).parameters
        return {name: p.default for name, p in parameters.items() if p.default is not p.empty}

    @property
    def flags(self) -> set[str]:
        """The names of the flags that the mode takes, beside those that every mode does."""
        own = {"sampler"} if "sampler" in self.sections else set()
        return own | {*self.defaults, "config" if self.training else "weights"}

    def arguments(self, values: dict) -> dict:
        """The function's keyword arguments from the values of the flags that were given."""
        defaults = self.defaults
        found = {name: value for name, value in values.items() if name in defaults}
        given = {name: found.pop(name) for name in GUIDANCE if self._guidance and name in found}
        if given:
            found[self._guidance] = (at_each_scale if self._guidance == "guidances" else at_one_scale)(given)
        return found

    @property
    def _guidance(self) -> str | None:
        parameters = inspect.signature(self.function).parameters
        return next((name for name in ("guidance", "guidances") if name in parameters), None)


MODES = {
    "train": Mode("score_sde.modes.train:train", training=True),
    "train_classifier": Mode("score_sde.modes.train:train_classifier", training=True),
    "sample": Mode("score_sde.modes.sample:sample", ("sampler",)),
    "guidance_sweep": Mode("score_sde.modes.guidance_sweep:guidance_sweep", ("sampler",)),
    "evaluate": Mode("score_sde.modes.evaluate:evaluate", ("data", "sampler")),
    "likelihood": Mode("score_sde.modes.likelihood:likelihood", ("data",)),
    "encode": Mode("score_sde.modes.encode:encode_items", ("data",)),
    "interpolate": Mode("score_sde.modes.interpolate:interpolate", ("data",)),
    "restore": Mode("score_sde.modes.restore:restore", ("sampler", "data")),
    "edit": Mode("score_sde.modes.edit:edit", ("sampler", "data")),
    "compare": Mode("score_sde.modes.compare:compare"),
    "ema": Mode("score_sde.modes.ema:reconstruct_ema", ("data",)),
    "check": Mode("score_sde.modes.check:check", ("data",)),
    "visualize": Mode("score_sde.modes.visualize:visualize", ("sampler", "data")),
}
