"""The resolved configuration of a command: a config file or a run folder's config.json, defaults, and overrides."""

import copy
import difflib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from itertools import pairwise
from operator import getitem
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from samplers import SAMPLERS
from score_sde.config.component import Component
from score_sde.config.migration import current_config, new_key, new_value
from score_sde.config.naming import with_keys
from score_sde.config.options import (
    AutoencoderSection,
    ClassifierSection,
    Config,
    ControlSection,
    DataOptions,
    DistillationSection,
    ModelOptions,
    TrainingSection,
    data_defaults,
    own_keys,
)
from score_sde.config.program import program, quoted
from score_sde.config.registration import Registered, nothing_registered
from score_sde.config.schema import CHOICES, DEFAULTS, NAMED, OWN, options_of
from sde.data import DATASETS
from sde.files import read_json
from sde.named import is_path
from sde.renamed import sentence

PACKAGE = Path(__file__).resolve().parent.parent
TABLES: Mapping[str, Mapping] = {
    **{f"config.{section}.name": table for section, table in NAMED.items()},
    **{f"config.{key}": table for key, table in CHOICES.items() if isinstance(table, Mapping)},
    "config.data.dataset": DATASETS,
    "config.sampler.name": SAMPLERS,
}
"""The tables of components, by the key that names one."""
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"
"""The project's own configs: a part of the installed package, and at the top of a checkout."""


def pick(key: str, value: str, allowed: Iterable[str]) -> str:
    """value, or a ValueError with what is allowed and the nearest of it."""
    allowed = list(allowed)
    if value not in allowed:
        new = new_value(value)
        if new and new.partition(",")[0] in allowed:
            raise ValueError(sentence(f"{key} = {value!r}", new))
        near = difflib.get_close_matches(str(value), allowed, 1, 0.5)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"{key} = {value!r}: needs one of {', '.join(allowed)}{hint}")
    return value


def find(section: str, name: str) -> Callable:
    """The component of a section with a name, by a key of its table or by an import path. Raises ValueError with what
    is allowed."""
    key = f"config.{section}.name"
    if is_path(name) and section in OWN:
        return OWN[section](name, key)
    return NAMED[section][pick(key, name, NAMED[section])]


def config_path(name: str) -> Path:
    """A config file by path, or by its name among the project's own."""
    for path in (Path(name), CONFIGS / name, CONFIGS / f"{name}.py"):
        if path.is_file():
            return path
    own = sorted(p.stem for p in CONFIGS.glob("*.py"))
    raise ValueError(
        f"--config={name} does not exist: needs a Python file with get_config(), or one of {', '.join(own)}"
    )


def read_config(path: Path) -> dict:
    """The values that a config file's get_config() returns."""
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ImportError("its name does not end in .py")
        module = importlib.util.module_from_spec(spec)
        with nothing_registered(TABLES):
            spec.loader.exec_module(module)
            return module.get_config().to_dict()
    except Registered as error:
        raise ValueError(f"--config={path} {error}") from None
    except Exception as error:
        raise ValueError(
            f"--config={path} failed ({type(error).__name__}: {error}): it must be a Python file with "
            "get_config() that returns an ml_collections.ConfigDict"
        ) from None


def read_run_config(workdir: Path) -> dict:
    """The values in a run folder's config.json, those of an earlier version under the names of today."""
    path = workdir / "config.json"
    if not path.exists():
        raise ValueError(
            f"--workdir={workdir} has no config.json, so it is not a run folder: train first with "
            f"`{program()} --mode train --workdir {quoted(workdir)}`"
        )
    try:
        values = read_json(path)
        if not isinstance(values, dict):
            raise ValueError("not an object")
        return current_config(values)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): restore it, or train into a new --workdir") from None


def resolve(values: dict, overrides: list[str]) -> Config:
    """values over the defaults, then ``--config.key=value`` arguments, every key, name and option checked."""
    values, defaults = copy.deepcopy(values), copy.deepcopy(DEFAULTS)
    for key in NAMED:
        own, default = _section(values, key), _section(defaults, key)
        name = override(overrides, f"{key}.name") or own.get("name", default["name"])
        options = options_of(find(key, name))
        if own.get("name", name) != name:
            own.clear()
        own["name"] = name
        default.clear()
        default.update(name=name, **options)
    data = _section(values, "data")
    defaults["data"] = _data_keys(data, override(overrides, "data.dataset"))
    config = _parse(_Untold(_fill(defaults, values, "config")), overrides).to_dict()
    for key, allowed in CHOICES.items():
        pick(f"config.{key}", reduce(getitem, key.split("."), config), allowed)
    _refuse_unread(config["data"], overrides)
    return _built(config)


def _data_keys(data: dict, other: str | None) -> dict:
    """The defaults of config.data for the data set that it names, or the ``other`` one that takes its place: the keys
    that were the first one's alone are dropped."""
    named = data.get("dataset", DataOptions.dataset)
    dataset = other or named
    if not is_path(dataset):
        pick("config.data.dataset", dataset, DATASETS)
    found = data_defaults(dataset)
    if dataset != named:
        for key in {*data} - {*found}:
            if is_path(named) and key in own_keys(named):
                del data[key]
    return found


def _refuse_unread(data: dict, overrides: list[str]) -> None:
    """Refuse a key that is given, and that the data set does not read."""
    readers: dict[str, list[str]] = {}
    for dataset in dict.fromkeys((data["dataset"], *DATASETS)):
        for key in own_keys(dataset):
            readers.setdefault(key, []).append(dataset)
    for key, datasets in readers.items():
        if data["dataset"] not in datasets and override(overrides, f"data.{key}"):
            raise ValueError(
                f"config.data.{key} = {data[key]!r}: config.data.dataset = {data['dataset']!r} has no use for it; "
                f"leave it out, or take config.data.dataset={' or '.join(datasets)}"
            )


def _built(values: dict) -> Config:
    """The options of a run, of values with every key."""
    with with_keys("training"):
        training = TrainingSection.of(values["training"])
    with with_keys("classifier"):
        classifier = ClassifierSection.of(values["classifier"])
    with with_keys("autoencoder"):
        autoencoder = AutoencoderSection.of(values["autoencoder"])
    with with_keys("distillation", "distillation.method"):
        distillation = DistillationSection.of(values["distillation"])
    with with_keys("model", alpha="config.model.lora_alpha"):
        model = ModelOptions.of(values["model"])
    return Config(
        DataOptions.of(values["data"]),
        Component.of(values["sde"]),
        model,
        classifier,
        autoencoder,
        training,
        distillation,
        ControlSection.of(values["control"]),
        Component.of(values["sampler"]),
    )


def differences(old: dict, new: dict, path: str) -> Iterator[tuple[str, object, object]]:
    """The keys in which two sections differ, with both values; None where there is none."""
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{path}.{key}")
        elif before != after:
            yield f"{path}.{key}", before, after


def _section(values: dict, key: str) -> dict:
    for part in key.split("."):
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ValueError(f"config.{key} = {values!r}: needs a section of keys, with a name")
    return values


def _fill(defaults: dict, values: dict, path: str) -> dict:
    """values over defaults, which say what keys there are and of what type."""
    filled = dict(defaults)
    for key, value in values.items():
        if key not in defaults:
            raise ValueError(_unknown(f"{path}.{key}", key, defaults))
        default = defaults[key]
        if isinstance(default, dict) and isinstance(value, dict):
            filled[key] = _fill(default, value, f"{path}.{key}")
            continue
        # JSON has lists for tuples, and people write 1 for 1.0.
        value = tuple(value) if isinstance(value, list) else value
        value = float(value) if isinstance(default, float) and type(value) is int else value
        if type(value) is not type(default):
            raise ValueError(f"{path}.{key} = {value!r}: needs a {type(default).__name__}, like {default!r}")
        filled[key] = value
    return filled


class _Untold(ConfigDict):
    """Values whose text is not theirs: absl writes a flag's default out, which takes longer than all else here."""

    def __str__(self) -> str:
        return "config"


def _parse(config: ConfigDict, overrides: list[str]) -> ConfigDict:
    if not overrides:
        return config
    for argument in overrides:
        if argument.startswith("-"):
            _check_key(argument.lstrip("-").partition("=")[0], config)
    values = flags.FlagValues()
    argv = ["main.py", *overrides]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        values(argv)
    except flags.Error as error:
        raise ValueError(str(error)) from None
    return values.config


def _check_key(path: str, config: ConfigDict) -> None:
    section = config
    for key in path.split(".")[1:]:
        if not isinstance(section, ConfigDict) or key not in section:
            raise ValueError(_unknown(path, key, section if isinstance(section, ConfigDict) else ()))
        section = section[key]


def override(overrides: list[str], key: str) -> str | None:
    """The last value that ``--config.key=value`` arguments give a key, as text; None where they give none."""
    found = None
    for argument, following in pairwise([*overrides, ""]):
        name, equals, value = argument.lstrip("-").partition("=")
        if name == f"config.{key}":
            found = value if equals else following
    return found


def _unknown(path: str, key: str, allowed: Iterable[str]) -> str:
    new = new_key(path)
    if new and new.rpartition(".")[2] in allowed:
        return sentence(path, new)
    near = difflib.get_close_matches(key, list(allowed), 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(sorted(allowed))}"
    return f"unknown key {path}: {hint}"
