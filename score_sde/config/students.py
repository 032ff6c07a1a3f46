"""The config of a student: that of its teacher, with how it is distilled."""

from collections.abc import Sequence
from pathlib import Path

from score_sde.config.config import pick, read_run_config
from sde.distillation import METHODS

DEFAULT_METHOD = "progressive"

OF_THE_METHOD = ("loss_weighting", "uncertainty_weighting", "time_distribution", "time_mean", "time_std")
"""Keys of config.training that say how a score model's loss weighs times, which is a student's method's own."""


def student_values(
    folder: Path, own: dict | None, teacher: str | None, method: str | None, scales: Sequence[float] | None
) -> dict:
    """The values of a student's config: those in its run folder, where there are some, or those of its teacher's, the
    model and the process among them, with ``own`` values in place of the others. Raises ValueError for a teacher that
    is none, and for flags that are not those of a student that goes on."""
    if method is not None:
        pick("--method", method, METHODS)
    teacher = None if teacher is None else str(Path(teacher))
    given = {"teacher": teacher, "method": method, "guidance_scale": None if scales is None else tuple(scales)}
    if (folder / "config.json").exists():
        return _going_on(folder, given)
    chosen = method or DEFAULT_METHOD
    values = dict(own or {})
    if teacher is not None:
        values = taught_values(teacher) | {k: v for k, v in values.items() if k not in ("model", "sde")}
    values["training"] = {**values.get("training", {}), "uncertainty_weighting": False}
    if values.get("model", {}).get("lora_rank"):
        raise ValueError("config.model.lora_rank: a student's weights are trained themselves; leave it out")
    values["distillation"] = {"teacher": teacher or "", "method": {"name": chosen}}
    if scales is not None:
        values["distillation"]["guidance_scale"] = tuple(scales)
    return values | {"sampler": {"name": METHODS[chosen].sampler}}


def check_overrides(overrides: Sequence[str], teacher: str) -> None:
    """Raise ValueError for ``--config.key=value`` arguments of what is the teacher's, where there is one, and of what
    is the method's."""
    for argument in overrides:
        key = argument.lstrip("-").partition("=")[0]
        if teacher and key.startswith(("config.model.", "config.sde.")):
            raise ValueError(f"{argument}: a student has its teacher's network and process; leave it out")
        if key == "config.model.lora_rank":
            raise ValueError(f"{argument}: a student's weights are trained themselves; leave it out")
        if key in {f"config.training.{name}" for name in OF_THE_METHOD}:
            raise ValueError(
                f"{argument}: a student is trained by the loss and the times of its method; leave it out, or set those "
                "of config.distillation.method"
            )


def taught_values(teacher: str) -> dict:
    """The values in a teacher's config.json."""
    if not (Path(teacher) / "config.json").exists():
        raise ValueError(f"--teacher={teacher} is no run folder: needs one that training or --mode import has written")
    values = read_run_config(Path(teacher))
    if "distillation" in values:
        first = values["distillation"].get("teacher")
        raise ValueError(
            f"--teacher={teacher} is a student itself, whose jumps are no score to distill"
            + (f": name its own teacher, {first}" if first else "")
        )
    return without_updates(values)


def without_updates(values: dict) -> dict:
    """The values of a config of low-rank updates for a model that begins with their weights, merged."""
    model = {key: value for key, value in values.get("model", {}).items() if not key.startswith("lora_")}
    return values | {"model": model} if "model" in values else values


def _going_on(folder: Path, given: dict) -> dict:
    values = read_run_config(folder)
    if "distillation" not in values:
        raise ValueError(
            f"--workdir={folder} holds a run of another mode than distill: name a folder of its own for the student, "
            f"as {folder}-student"
        )
    held = values["distillation"]
    known = {**held, "method": held["method"]["name"], "guidance_scale": tuple(held["guidance_scale"])}
    for name, value in given.items():
        if value is not None and value != known[name]:
            raise ValueError(
                f"--{name}={value}: the student in {folder} was begun with {known[name]!r}; leave the flag out to go "
                "on, or name another --workdir"
            )
    return values
