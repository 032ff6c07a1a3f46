"""Controls that were trained here: the runs that they are of."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from score_sde.config.config import read_run_config, resolve
from score_sde.run.controls import Controls, read_scales, refuse_controls
from score_sde.run.folder import Run
from score_sde.run.guidance import GuidanceOptions
from sde import Denoiser
from sde.checkpoint.snapshots import stored_spec
from sde.condition.standardization import Standardization
from sde.condition.tree import CONTROL, control_kind
from sde.data import Dataset
from sde.data.controls import GIVEN, controlled
from sde.distillation import FlowMap
from sde.networks.controlnet import ControlNet


@dataclass(frozen=True)
class TrainedControls(Controls):
    """Controls of runs, with the ``specs`` of their models; ``first`` is the run of the command."""

    specs: list[dict]
    first: Run

    def around(self, model: Denoiser) -> Denoiser:
        own = model.network if isinstance(model.network, ControlNet) else None
        base = model.network if own is None else own.base
        others = self.runs if own is None else self.runs[1:]
        networks, flag = [] if own is None else [own], "--controls"
        for run in others:
            network = run.model().network
            if not isinstance(network, ControlNet):
                raise ValueError(f"{flag}: {run.folder} has no control")
            if not same_weights(base, network.base):
                raise ValueError(
                    f"{flag}: the control in {run.folder} was trained on another base than {self.first.folder}: "
                    "controls act together on the very weights that they were trained on"
                )
            networks.append(network)
        first, *further = networks
        found = first.with_branches(further, self.scales)
        found.base = base
        return with_network(model, found, self.specs)

    def held_out(self, data: Dataset) -> Dataset:
        """``data`` are those of the first run."""
        conditions = {kind: c for kind, c in data.conditions.items() if kind != CONTROL}
        for number, run in enumerate(self.runs):
            options = run.config.data
            if options.control == GIVEN and run is not self.first:
                raise ValueError(
                    f"--controls: the control of {run.folder} is not computed of items; give it by --control, one file "
                    "for each control with commas between them"
                )
            part = data if run is self.first else controlled(data, options.control, options.superres_factor)
            conditions[control_kind(number)] = part.conditions[CONTROL]
        return replace(data, conditions=conditions)


def trained_controls(run: Run, model: Denoiser | FlowMap, options: GuidanceOptions) -> TrainedControls | None:
    """The controls that a run and the flags of a command name; None where there are none. Raises ValueError for flags
    without any, for a folder without a control, and for another number of scales."""
    # A model of one's own need not have a network.
    own, further = isinstance(getattr(model, "network", None), ControlNet), options.controls or ""
    runs = [run] if own else []
    runs += [_opened(run, name.strip(), further) for name in further.split(",") if further]
    if not runs:
        refuse_controls(
            options, f"the model in {run.folder} has no control; name the run of one, or give it by --controls"
        )
        return None
    specs = [stored_spec(one.weights_file) for one in runs]
    shapes = [tuple(spec["conditions"][CONTROL]["shape"]) for spec in specs]
    limits = [spec[CONTROL]["range"] for spec in specs]
    return TrainedControls(shapes, limits, read_scales(options, len(runs)), runs, specs, run)


def _opened(run: Run, name: str, given: str) -> Run:
    path = Path(name)
    if not name or not (path / "config.json").exists():
        raise ValueError(f"--controls={given}: {name or 'nothing'} is no run folder; name folders with commas between")
    found = Run(path, resolve(read_run_config(path), []), run.device, run.world, imports=run.imports)
    if not found.weights_file.exists() or CONTROL not in stored_spec(found.weights_file):
        raise ValueError(f"--controls={given}: {name} has no control; train one with --mode train --base")
    return found


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two networks are the same, weight for weight."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(
        value.shape == theirs[name].shape and torch.equal(value, theirs[name].to(value.device))
        for name, value in ours.items()
    )


def with_network(model: Denoiser, network: ControlNet, specs: Sequence[dict]) -> Denoiser:
    """The same model with a ControlNet in the place of its network, and the units of its controls."""
    conditions = {kind: about for kind, about in specs[0]["conditions"].items() if kind != CONTROL}
    conditions |= {control_kind(number): spec["conditions"][CONTROL] for number, spec in enumerate(specs)}
    units = Standardization({kind: (about["shift"], about["scale"]) for kind, about in conditions.items()})
    found: Any = copy.copy(model)
    vars(found)["_modules"] = dict(vars(model)["_modules"])
    found.network = network
    found.standardization = units.to(next(model.parameters()).device)
    return found
