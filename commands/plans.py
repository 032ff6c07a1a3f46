"""Plans of a run folder: found once for a model, its guidance and a number of network calls, and kept in plans/."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch

from commands.guided import GuidanceOptions, guided
from commands.run import Run
from samplers import Plan, pilot_count, plan
from sde import Denoiser, NoisyClassifier
from sde.checkpoint import write_whole

VERSION = 1
"""Of the planner: plans of an older one are made anew."""


def planned(
    run: Run,
    denoiser: Denoiser,
    classifier: NoisyClassifier | None,
    weak: Denoiser | None,
    conditional: bool,
    options: GuidanceOptions,
    calls: int,
) -> Plan:
    """The plan for ``calls`` network calls a sample, from the run folder or made now, for all classes alike.

    A plan belongs to its guidance and to the very weights it was made for: its file is named by a hash of them.
    """
    weights = [run.weights_file]
    weights += [run.classifier_file] * (classifier is not None) + [run.folder / str(options.weak)] * (weak is not None)
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in weights]
    key = hashlib.sha256(json.dumps([VERSION, hashes, conditional, asdict(options)]).encode()).hexdigest()[:16]
    path = run.folder / "plans" / f"{calls}-{key}.json"
    if path.exists():
        return _read(path)
    classes = denoiser.num_classes or (classifier.num_classes if classifier else None)
    labels = torch.arange(pilot_count(calls)) % classes if conditional else None
    found = plan(guided(denoiser, classifier, labels, options, weak), denoiser.event_shape, calls)
    path.parent.mkdir(exist_ok=True)
    write_whole(path, (json.dumps(found.record(), indent=1) + "\n").encode())
    print(
        f"planned {calls} network calls, before the closing denoising one, on {pilot_count(calls)} pilots at the cost "
        f"of {found.samples:.0f} samples: relative error {found.error:.2g}, kept in {path}"
    )
    return found


def _read(path: Path) -> Plan:
    try:
        return Plan.of_record(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and it will be made anew") from None
