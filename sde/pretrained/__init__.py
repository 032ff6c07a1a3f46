"""Foreign weights: models that other projects trained, as score models of ours."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from sde.model.classifier import NoisyClassifier
from sde.model.denoiser import Denoiser
from sde.pretrained import denoising_diffusion_pytorch, diffusers, edm, guided_diffusion, k_diffusion, score_sde
from sde.pretrained.contents import Contents, read_contents
from sde.pretrained.facts import Facts, Kind
from sde.pretrained.foreign import Foreign
from sde.pretrained.pipelines import load_pipeline

__all__ = ["SOURCES", "WEIGHTS", "Source", "load_pipeline", "load_pretrained", "read_pretrained"]

WEIGHTS = ("ema", "raw")

SUFFIXES = (".pt", ".pth", ".pkl", ".ckpt", ".bin", ".safetensors")
"""What files of weights are called."""


class Source(Protocol):
    """A module that reads the files of one project."""

    PROJECT: str
    """The project and the licence that it publishes its weights under, as a user has to know them."""

    OPTIONS: Mapping[str, str]
    """Every option of the project by its own name there, with the meaning."""

    OPTION_KINDS: Mapping[str, Kind]
    """What each option may be."""

    def recognizes(self, contents: Contents) -> bool:
        """Whether a file is of this project, by the keys and shapes in it."""
        ...

    def read(self, contents: Contents, weights: str, facts: Facts) -> Foreign:
        """Its model. Raises ValueError for a fact that is missing or contradicts the file, for weights that do not fit,
        and for an average that the file does not hold."""
        ...


SOURCES: dict[str, Source] = {
    "score_sde": score_sde,
    "edm": edm,
    "guided_diffusion": guided_diffusion,
    "k_diffusion": k_diffusion,
    "denoising_diffusion_pytorch": denoising_diffusion_pytorch,
    "diffusers": diffusers,
}
"""The modules that read foreign weights, by the name of the project."""


def read_pretrained(
    path: Path | str, source: str = "auto", weights: str = "ema", facts: Mapping[str, Any] | None = None
) -> Foreign:
    """What ``load_pretrained`` builds a model of."""
    if weights not in WEIGHTS:
        raise ValueError(f"weights = {weights!r}: needs one of {', '.join(WEIGHTS)}")
    source = source.lower().replace("-", "_")
    if source != "auto" and source not in SOURCES:
        raise ValueError(f"source = {source!r}: needs auto or one of {', '.join(SOURCES)}")
    contents = read_contents(Path(path))
    found = [name for name, module in SOURCES.items() if module.recognizes(contents)]
    if not found or source not in ("auto", *found):
        seen = f"it looks like one of {found[0]}" if found else _glance(contents)
        wanted = f"no file of {source}" if source != "auto" else f"none of {', '.join(SOURCES)}"
        raise ValueError(f"{path} is {wanted}: {seen}")
    name = found[0] if source == "auto" else source
    module, told = SOURCES[name], Facts(facts, SOURCES[name].OPTIONS, SOURCES[name].OPTION_KINDS)
    try:
        foreign = module.read(contents, weights, told)
    except KeyError as error:
        raise ValueError(f"{path} looks like a file of {name}, but has no {error}: it is damaged, or changed") from None
    except (LookupError, ArithmeticError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{path} looks like a file of {name}, but has tensors of shapes that its networks have not ({error}): it "
            "is damaged, or changed"
        ) from error
    origin = {"project": module.PROJECT, "file": contents.path.name, "weights": weights}
    return replace(foreign, origin=origin | foreign.origin)


def load_pretrained(
    path: Path | str, source: str = "auto", weights: str = "ema", facts: Mapping[str, Any] | None = None
) -> Denoiser | NoisyClassifier:
    """The model of a file or folder that another project wrote, in eval mode on the CPU.

    ``source`` is a key of SOURCES, or "auto": found by the keys and shapes in the file. ``weights`` are the averaged
    ones, "ema", or "raw". ``facts`` are options by the source's own names, flat or nested as in its config, for what
    the file does not say. Nothing that the file names is run. Raises ValueError for a file that is damaged, names code
    or is of no known source; for a fact that is missing, unknown or contradicts the file; for weights that do not fit;
    and for an average that is not there.
    """
    foreign = read_pretrained(path, source, weights, facts)
    model = foreign.build()
    if foreign.assumed:
        warnings.warn(foreign.assumed, stacklevel=2)
    return model


def _glance(contents: Contents) -> str:
    """What was found where nothing was recognized, with what may have been meant."""
    path = contents.path
    if contents.kind == "folder":
        inside = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        return f"it is a folder; did you mean {inside[0]}?" if inside else "it is a folder without such a file"
    if "score_sde" in contents.metadata:
        return "it is a model of this project already, which sde.checkpoint.load_model loads"
    if (path.parent / "config.json").is_file():
        return f"it may be a part of the folder {path.parent}: name that"
    names = list(contents.data) if isinstance(contents.data, dict) else []
    return (
        f"it holds a {contents.kind} with {', '.join(map(str, names[:3])) if names else type(contents.data).__name__}"
    )
