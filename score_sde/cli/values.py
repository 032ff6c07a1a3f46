"""The values of a command's config, before its overrides: of a config file, a run folder, a teacher or a base."""

from pathlib import Path

from absl import flags

from score_sde.cli.modes import MODES
from score_sde.config.config import config_path, override, read_config, read_run_config
from score_sde.config.registration import Registered, nothing_registered
from score_sde.config.students import check_overrides, student_values, without_updates
from score_sde.kinds import KINDS
from score_sde.run.pipelines import is_pipeline


def started(folder: Path) -> bool:
    """Whether it is a run folder."""
    return (folder / "config.json").exists()


def values_of(options: flags.FlagValues, overrides: list[str], folder: Path) -> dict:
    """The values for a command in a run folder, which a mode that trains or makes one may begin."""
    mode = MODES[options.mode]
    if mode.makes:
        return of_root(overrides)
    if options.mode == "distill":
        return _of_student(options, overrides, folder)
    if not mode.training or (started(folder) and not options.config):
        return read_run_config(folder)
    named = options.config or (None if options.init or options.base else "digits")
    values = _read(config_path(named)) if named else {}
    if options.init and is_pipeline(options.init):
        values = values or of_root(overrides)
    elif options.init:
        values = _begun(values, options.init, "init")
    return _controlled(values, options.base, overrides) if options.base else values


def of_root(overrides: list[str]) -> dict:
    """Those of images in a folder, or of arrays in a file."""
    root = Path(override(overrides, "data.root") or "")
    return {"data": {"dataset": "points" if root.is_file() else "images"}}


def _of_student(options: flags.FlagValues, overrides: list[str], folder: Path) -> dict:
    """Raises ValueError for keys of what is its teacher's or its method's."""
    named = options.config or (None if options.teacher or started(folder) else "digits")
    own = _read(config_path(named)) if named else None
    values = student_values(folder, own, options.teacher, options.method, options.guidance_scale)
    check_overrides(overrides, values["distillation"]["teacher"])
    return values


def _begun(values: dict, folder: str, flag: str) -> dict:
    """The values with the model and the process of the run that a flag, --init or --base, names, and all of that run's
    where there are none."""
    if not started(Path(folder)):
        raise ValueError(f"--{flag}={folder} is no run folder: needs one that training or --mode import has written")
    other = without_updates(read_run_config(Path(folder)))
    return other | {name: value for name, value in values.items() if name not in ("model", "sde")}


def _controlled(values: dict, base: str, overrides: list[str]) -> dict:
    """The values with the model of the run ``--base`` and a control, on the data of it unless they name others. Raises
    ValueError for keys of what is the base's."""
    for argument in overrides:
        if argument.lstrip("-").startswith(("config.model.", "config.sde.")):
            raise ValueError(f"{argument}: a ControlNet has the network and the process of its --base; leave it out")
    found, data = _begun(values, base, "base"), values.get("data", {})
    own = read_run_config(Path(base))["data"]
    if data.get("dataset", own["dataset"]) == own["dataset"]:
        # What the config does not say of the same data set is as for the base.
        found["data"] = {**own, **data}
    return found | {"control": {**values.get("control", {}), "base": str(Path(base))}}


def _read(path: Path) -> dict:
    """The values of a config file. Raises ValueError for one that registers a kind of data, too."""
    try:
        with nothing_registered({"config.data.kind": KINDS}):
            return read_config(path)
    except Registered as error:
        raise ValueError(f"--config={path} {error}") from None
