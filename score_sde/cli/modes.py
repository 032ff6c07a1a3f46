"""Modes of the command line: functions of a run whose keyword arguments are flags."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pkgutil import resolve_name
from typing import Any

from score_sde.run.outputs import written

PIPELINE_FLAGS = ("pipeline", "pipeline_config", "dtype", "image_size")
"""Flags of the modes that take pipelines, of what is loaded."""


@dataclass(frozen=True)
class Mode:
    """``path`` is module:function, imported when it is needed. The function takes a run and keyword arguments, each the
    flag of its name, or where it is annotated with a dataclass the flags of its fields; one that is not given leaves
    the function its own default. ``sections`` are those of a trained run's config that can be changed; a mode that
    trains has none and can change them all. Of the modes that ``writes`` what others read, models and training states,
    one at a time does; what the others write is numbered. One that ``makes`` a run folder needs none. One that takes
    ``students`` runs on run folders of those, which have no score; one that takes ``pipelines`` on those of diffusers
    as well. One that ``compiles`` calls networks often enough for ``--compile``, and does not differentiate them. One
    with ``tolerance`` draws samples by samplers that may choose their own steps. ``settles`` are the keys of its
    sections that it sets itself. ``suffixes`` are those of the files that ``--out`` names; where there are none, it is
    a folder."""

    path: str
    sections: tuple[str, ...] = ()
    training: bool = False
    writes: bool = False
    makes: bool = False
    compiles: bool = True
    students: bool = False
    pipelines: bool = False
    tolerance: bool = False
    settles: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = (".png", ".npz")

    @property
    def function(self) -> Callable:
        """What the mode does: (run, **flags) -> the values of its last line."""
        return resolve_name(self.path)

    @property
    def defaults(self) -> dict:
        """The value of each flag of the function that is not given."""
        found: dict[str, Any] = {}
        for parameter in self._parameters:
            if is_dataclass(parameter.annotation):
                found |= {field.name: field.default for field in fields(parameter.annotation)}
            else:
                found[parameter.name] = parameter.default
        return found

    @property
    def flags(self) -> set[str]:
        """The names of the flags that the mode takes, beside those that every mode does."""
        own = {"sampler"} if "sampler" in self.sections else set()
        own |= {"tolerance"} if self.tolerance else set()
        own |= {"compile"} if self.compiles and not (self.training or self.makes) else set()
        shared: tuple[str, ...] = ("config",) if self.training else () if self.makes else ("weights", "imports")
        shared += () if self.training or self.writes else ("lora",)
        return own | {*self.defaults, *shared, *(PIPELINE_FLAGS if self.pipelines else ())}

    def arguments(self, values: dict) -> dict:
        """The function's keyword arguments from the values of the flags that were given."""
        found = {}
        for parameter in self._parameters:
            options = parameter.annotation
            if isinstance(options, type) and is_dataclass(options):
                own = {field.name: values[field.name] for field in fields(options) if field.name in values}
                if own:
                    found[parameter.name] = options(**{name: _single(name, value) for name, value in own.items()})
            elif parameter.name in values:
                found[parameter.name] = values[parameter.name]
        return found

    @property
    def _parameters(self) -> list[inspect.Parameter]:
        parameters = inspect.signature(self.function).parameters.values()
        return [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def _single(flag: str, value: object) -> object:
    """The number of a flag of which --mode guidance_sweep takes several. Raises ValueError where there are several."""
    if not isinstance(value, tuple):
        return value
    if len(value) > 1:
        raise ValueError(f"--{flag}={written(value)}: takes a single scale here; --mode guidance_sweep takes several")
    return value[0]


MODES = {
    "train": Mode("score_sde.modes.train:train", training=True, writes=True),
    "train_classifier": Mode("score_sde.modes.train:train_classifier", training=True, writes=True),
    "train_autoencoder": Mode("score_sde.modes.train_autoencoder:train_autoencoder", training=True, writes=True),
    "distill": Mode("score_sde.modes.distill:distill", training=True, writes=True),
    "import": Mode(
        "score_sde.modes.foreign:import_weights",
        ("data", "sampler"),
        writes=True,
        makes=True,
        settles=("data.event_shape", "data.num_levels"),
    ),
    "sample": Mode("score_sde.modes.sample:sample", ("sampler",), students=True, pipelines=True, tolerance=True),
    "pairs": Mode("score_sde.modes.pairs:pairs", ("sampler",), tolerance=True, suffixes=(".npz",)),
    "guidance_sweep": Mode(
        "score_sde.modes.guidance_sweep:guidance_sweep", ("sampler",), tolerance=True, suffixes=(".json", ".png")
    ),
    "evaluate": Mode(
        "score_sde.modes.evaluate:evaluate",
        ("data", "sampler"),
        students=True,
        tolerance=True,
        suffixes=(".json", ".npz"),
    ),
    "likelihood": Mode("score_sde.modes.likelihood:likelihood", ("data",), compiles=False, suffixes=(".npz", ".csv")),
    "encode": Mode("score_sde.modes.encode:encode_items", ("data",), pipelines=True),
    "interpolate": Mode("score_sde.modes.interpolate:interpolate", ("data",)),
    "restore": Mode(
        "score_sde.modes.restore:restore",
        ("sampler", "data"),
        pipelines=True,
        suffixes=(".png", ".npz", ".html", ".csv"),
    ),
    "edit": Mode("score_sde.modes.edit:edit", ("sampler", "data"), pipelines=True, tolerance=True),
    "compare": Mode(
        "score_sde.modes.compare:compare", ("data",), students=True, pipelines=True, suffixes=(".html", ".json")
    ),
    "ema": Mode("score_sde.modes.ema:reconstruct_ema", ("data",), writes=True, compiles=False, students=True),
    "export": Mode("score_sde.modes.export:export", compiles=False, students=True, suffixes=()),
    "check": Mode("score_sde.modes.check:check", ("data",), compiles=False, students=True),
    "visualize": Mode("score_sde.modes.visualize:visualize", ("sampler", "data"), suffixes=(".png", ".npz", ".gif")),
}
