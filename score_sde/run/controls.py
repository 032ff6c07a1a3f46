"""Controls of samples: the runs that they are of, and their scales."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from score_sde.config.config import read_run_config, resolve
from score_sde.run.control_files import read_control
from score_sde.run.folder import Run
from score_sde.run.inputs import read_floats
from sde import Denoiser
from sde.checkpoint.snapshots import stored_spec
from sde.condition.standardization import Standardization
from sde.condition.tree import CONTROL, Condition, control_kind
from sde.data import Dataset
from sde.data.controls import GIVEN, controlled
from sde.networks.controlnet import ControlNet


@dataclass(frozen=True)
class Controls:
    """The controls of a command, in order: the ``runs`` that they are of, the ``specs`` of their models, and their
    ``scales``."""

    runs: list[Run]
    specs: list[dict]
    scales: list[float]
    first: Run

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each, without rows."""
        return [tuple(spec["conditions"][CONTROL]["shape"]) for spec in self.specs]

    def around(self, model: Denoiser) -> Denoiser:
        """The model with all of them at their scales. Raises ValueError for one that was trained on another base."""
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
        """The data with all controls, computed of their items; ``data`` are those of the first run."""
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

    def read(self, text: str) -> Condition:
        """``--control``: by kind the controls of the files, with rows of their own number."""
        files = [part.strip() for part in text.split(",")]
        if len(files) != len(self.runs):
            raise ValueError(
                f"--control={text} names {len(files)} files for {len(self.runs)} control"
                f"{'s' * (len(self.runs) > 1)}: needs one each, with commas between them; a folder holds several "
                "pictures of one control"
            )
        found = {}
        for number, (file, shape, spec) in enumerate(zip(files, self.shapes, self.specs, strict=True)):
            found[control_kind(number)] = read_control(f"--control={file}", file, shape, spec[CONTROL]["range"])
        return found


def read_scales(options: Any, count: int) -> list[float]:
    """``--control_scale``, one for each control, 1 where it is not given."""
    if options.control_scale is None:
        return [1.0] * count
    scales = read_floats("--control_scale", options.control_scale, "numbers, one for each control, as in 1,0.5")
    if len(scales) != count or not all(np.isfinite(scales)):
        raise ValueError(
            f"--control_scale={options.control_scale}: needs {count} finite number{'s' * (count > 1)}, one for each "
            "control"
        )
    return scales


def controls_of(run: Run, model: Any, options: Any) -> Controls | None:
    """The controls that a run and the flags of a command name; None where there are none. Raises ValueError for flags
    without any, for a folder without a control, and for another number of scales."""
    own = isinstance(getattr(model, "network", None), ControlNet)
    runs = [run] if own else []
    for name in (options.controls or "").split(",") if options.controls else ():
        runs.append(_opened(run, name.strip(), options.controls))
    if not runs:
        given = {"control": options.control, "control_scale": options.control_scale}
        for flag, value in given.items():
            if value is not None:
                raise ValueError(
                    f"--{flag}={value}: the model in {run.folder} has no control; name the run of one, or give it by "
                    "--controls"
                )
        return None
    return Controls(runs, [stored_spec(one.weights_file) for one in runs], read_scales(options, len(runs)), run)


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
