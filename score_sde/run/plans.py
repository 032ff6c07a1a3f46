"""Plans of a run folder: found once for a model, its guidance and a number of network calls, and kept in plans/."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from samplers import Plan, pilot_count, plan
from score_sde.config.migration import PLAN_FLAGS, current_plan
from score_sde.run.conditions import cycled, read_condition
from score_sde.run.folder import Run, event_shape_of
from score_sde.run.guidance import UNGUIDED, GuidanceOptions
from score_sde.run.guides import Guides
from score_sde.run.lock import one_writer
from sde.condition.tree import Condition
from sde.files import file_digest, read_json, write_json
from sde.pretrained.pipelines.lora_files import lora_file

NEW_FLAGS = ("negative_prompt", "control", "control_scale", "controls", "control_branches")
"""Those that plans are named by where they are given alone."""

VERSION = 1
"""Version of the planner: plans of an older one are made anew."""


def planned(
    run: Run, guides: Guides, cond: Condition | None, calls: int, options: GuidanceOptions | None = None
) -> Plan:
    """The plan for ``calls`` network calls per sample, from the run folder or made now, for all classes alike; pilots
    have conditions of the data, or where there are none, as beside pipelines, those of the samples, ``cond``.

    A plan belongs to its guidance and to the very weights it was made for: its file is named by a hash of them.
    """
    options, conditional = options or guides.options, cond is not None
    hashes = [run.pipeline.fingerprint] if run.pipeline else [file_digest(file) for file in guides.files(options)]
    hashes += [f"{file_digest(lora_file(Path(file)))} {scale:g}" for file, scale in run.updates.files]
    # By the names that the flags had at first, so that the plans of older versions are found.
    flags = {
        PLAN_FLAGS.get(name, name): value
        for name, value in asdict(options).items()
        if name not in NEW_FLAGS or value != getattr(UNGUIDED, name)
    }
    key = hashlib.sha256(json.dumps([VERSION, hashes, conditional, flags]).encode()).hexdigest()[:16]
    path = run.folder / "plans" / f"{calls}-{key}.json"
    if path.exists():
        return _read(path)
    with one_writer(path.parent / ".lock", f"a plan for {calls} network calls", "wait for its end", wait=True):
        # Whom this command has waited for may have made the same.
        return _read(path) if path.exists() else _made(run, guides, cond, calls, options, path)


def _made(run: Run, guides: Guides, asked: Condition | None, calls: int, options: GuidanceOptions, path: Path) -> Plan:
    print(
        f"planning {calls} network calls on {pilot_count(calls)} pilots, once for these weights ...",
        flush=True,
    )
    cond = None
    if asked is not None:
        count = pilot_count(calls)
        cond = cycled(asked, count) if run.pipeline else read_condition(run, guides, None, None, count)
    found = plan(guides(cond, options), event_shape_of(guides.denoiser), calls)
    write_json(path, found.record())
    print(
        f"planned {calls} network calls, before the closing denoising one, on {pilot_count(calls)} pilots at the cost "
        f"of {found.samples:.0f} samples: relative error {found.error:.2g}, kept in {path}"
    )
    return found


def _read(path: Path) -> Plan:
    try:
        return Plan.of_record(current_plan(read_json(path)))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and it will be made anew") from None
