"""Entrants: the runs of a comparison, score models and students over the same data, each with what it is told."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from samplers import FLOW_MAP_SAMPLERS
from samplers.ode import ODE
from samplers.protocol import suits
from score_sde.comparison.candidates import Candidate, find_candidates, fixed_candidate, suited
from score_sde.config.config import read_run_config, resolve
from score_sde.config.naming import with_flag
from score_sde.config.program import program, quoted
from score_sde.run.conditions import read_condition
from score_sde.run.folder import Run, event_shape_of
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.guides import Guides
from sde.condition.tree import Condition
from sde.data import Dataset
from sde.data.statistics import spread
from sde.distillation import FlowMap
from sde.files import file_digest

STUDENT_CALLS = (1, 2, 4)
"""Network calls at which students are compared, unless told otherwise."""

SHOWN = 16
"""Held-out items by which the data of two runs are told apart."""


@dataclass(frozen=True)
class Entrant:
    """A run with its model, guided, and the condition of the samples; ``label`` names it where there are several.
    ``flow`` is the label of the entrant whose flow it follows: its own, or that of a student's teacher."""

    run: Run
    guides: Guides
    cond: Condition | None
    label: str = ""
    flow: str | None = None

    @property
    def model(self) -> Any:
        """The score model, or the flow map, with the condition bound."""
        return self.guides(self.cond)

    @property
    def student(self) -> bool:
        """Whether it is a flow map, which has no flow of its own."""
        return isinstance(self.guides.denoiser, FlowMap)

    @property
    def solvable(self) -> bool:
        """Whether it has a probability flow to be solved."""
        return not self.student and suits(ODE(), self.guides.denoiser.sde)

    def command(self, given: dict, count: int) -> str:
        """The command that draws the samples with the values of flags that were ``given``, but for the sampler."""
        own: dict = {"workdir": self.run.folder, "weights": self.run.weights}
        if self.run.pipeline is not None:
            # As the command named it.
            asked = ("pipeline", "pipeline_config", "dtype", "image_size")
            own = {name: self.run.settings[name] for name in asked if name in self.run.settings}
        own |= {"lora": self.run.settings["lora"]} if "lora" in self.run.settings else {}
        values = {**own, **given, **asdict(self.guides.options)}
        usual = {
            "weights": Run.weights,
            "labels": None,
            "condition": None,
            "prompt": None,
            "seed": 0,
            **asdict(UNGUIDED),
        }
        unusual = {name: value for name, value in values.items() if name not in usual or value != usual[name]}
        flags = [f"--{name} {quoted(value)}" for name, value in unusual.items()]
        return " ".join([f"{program()} --mode sample", *flags, f"--num_samples {count}"])

    def candidates(
        self, names: Sequence[str], budgets: Sequence[int], student_budgets: Sequence[int]
    ) -> tuple[list[Candidate], list[str]]:
        """The samplers of these names at these budgets, of a student its own, and sentences on what is left out."""
        if self.student:
            found, notes = self._jumps(student_budgets)
        else:
            suit, left_out = suited(names, self.guides.denoiser.sde)
            for sentence in left_out:
                print(sentence)
            found, notes = find_candidates(self.run, self.guides, self.cond, suit, budgets)
            notes = left_out + notes
        model, said = self.model, f"{self.label}: " if self.label else ""
        own = {"model": model, "entrant": self.label, "flow": self.flow}
        found = [replace(one, **own, deterministic=one.deterministic and self._held(one)) for one in found]
        return found, [f"{said}{note}" for note in notes]

    def _held(self, candidate: Candidate) -> bool:
        """Whether its samples can be held against a flow: those of a student whose last step leads to the data, where
        its teacher is there."""
        if not self.student:
            return True
        return self.flow is not None and bool(candidate.times[-1] <= self.guides.denoiser.sde.t_min)

    def taught_by(self, other: "Entrant") -> bool:
        """Whether a student is to follow the flow of another run: that of its teacher's weights, with the guidance that
        is baked in, or that it is told."""
        known = self.run.student or {}
        if other.student or known.get("sha256") != file_digest(other.run.weights_file):
            return False
        told = known["guidance"] is not None
        scale = self.guides.options.guidance_scale if told else known["guidance_scale"][0]
        return other.guides.options == GuidanceOptions(guidance_scale=scale)

    def _jumps(self, budgets: Sequence[int]) -> tuple[list[Candidate], list[str]]:
        known = self.run.student or {}
        configured = dict(self.run.config.sampler)["name"]
        name = configured if configured in FLOW_MAP_SAMPLERS else known["sampler"]
        if known["times"] is None:
            return find_candidates(self.run, self.guides, self.cond, [name], budgets, known["grid"])
        # It was trained for these times, and knows no others.
        return [fixed_candidate(self.model, event_shape_of(self.guides.denoiser), "jump", known["times"])], []


def open_entrants(
    run: Run,
    folders: str | None,
    guidance: GuidanceOptions,
    labels: str | None,
    condition: str | None,
    prompt: str | None,
    count: int,
    seed: int,
) -> list[Entrant]:
    """The run alone, or those of ``--runs``, the run itself first. Raises ValueError for what is no run folder, is
    there twice, or has other data."""
    runs = [run]
    for name in (folders or "").split(",") if folders else ():
        path = Path(name.strip())
        if not (path / "config.json").exists():
            raise ValueError(
                f"--runs={folders}: {name or 'nothing'} is no run folder; name folders with commas between"
            )
        if path.resolve() != run.folder.resolve():
            runs.append(Run(path, resolve(read_run_config(path), []), run.device, run.world, imports=run.imports))
    if len({one.folder.resolve() for one in runs}) < len(runs):
        raise ValueError(f"--runs={folders} names a run folder twice")
    names = Counter(one.folder.name for one in runs)
    found = []
    for one in runs:
        model = one.sampled_model()
        if len(runs) > 1:
            with with_flag("--runs", folders):
                _check_data(run, one)
        # What is baked into a student is not asked of it again.
        own = UNGUIDED if isinstance(model, FlowMap) and model.guidance is None and len(runs) > 1 else guidance
        guides = Guides(one, model, own)
        cond = read_condition(one, guides, labels, condition, count, prompt=prompt, seed=seed, by_law=True)
        label = one.folder.name if names[one.folder.name] == 1 else str(one.folder)
        found.append(Entrant(one, guides, cond, label if len(runs) > 1 else ""))
    return [replace(one, flow=_flow(one, found)) for one in found]


def _flow(one: Entrant, entrants: Sequence[Entrant]) -> str | None:
    if not one.student:
        return one.label
    return next((other.label for other in entrants if one.taught_by(other)), None)


def _check_data(first: Run, other: Run) -> None:
    """Raise ValueError unless both runs are over the same data, in data units: transforms may differ."""
    if first is other:
        return
    ours, theirs = first.data()[1], other.data()[1]

    def refuse(what: str, own: object, its: object) -> ValueError:
        return ValueError(
            f"{other.folder} has {what} {its}, {first.folder} {own}: runs over the same data alone can be compared"
        )

    if ours.event_shape != theirs.event_shape:
        raise refuse("items of shape", ours.event_shape, theirs.event_shape)
    if ours.transform.num_levels != theirs.transform.num_levels:
        levels = [part.transform.num_levels or "no" for part in (ours, theirs)]
        raise refuse("levels:", *levels)
    if len(ours) != len(theirs):
        raise refuse("held-out items:", len(ours), len(theirs))
    if not torch.equal(*(_items(part) for part in (ours, theirs))):
        raise ValueError(
            f"the held-out items of {other.folder} are others than those of {first.folder}: runs over the same data "
            "alone can be compared"
        )


def _items(data: Dataset) -> torch.Tensor:
    return data.batch(spread(len(data), SHOWN))[0]
