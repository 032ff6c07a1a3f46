"""Files of pairs: noises, and the samples that a run without further noise made of them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_sde.config.naming import with_words
from sde import Denoiser
from sde.condition.tree import Condition, check_labels
from sde.data import Dataset, existing
from sde.data.array_files import FileOfArrays, read_file
from sde.data.arrays import condition_array, read_array
from sde.data.pairs import paired

KEY = "config.data.pairs"


def read_pairs(path: str, data: Dataset, model: Denoiser) -> Dataset:
    """The pairs of ``config.data.pairs`` to train a model on in place of ``data``, whose held-out part, transform and
    classes stay. Raises ValueError for a file that is none of --mode pairs, for pairs of another shape, and for those
    of another kind of run: of other levels or classes, or without what the model is told."""
    file = existing(path, KEY)
    with with_words(f"{KEY}={path}"):
        held = read_file(file)
        noise = held.others.get("noise")
        if noise is None:
            raise ValueError(
                "it has no array `noise`: needs noises and their samples, as --mode pairs writes them; samples alone "
                "are data, of config.data.root"
            )
        x, labels, sizes = read_array(file)
        if tuple(x.shape[1:]) != data.event_shape:
            raise ValueError(f"its samples have shape {tuple(x.shape[1:])}, the data {data.event_shape}")
        inner = data.transform.inner_shape(data.event_shape)
        if noise.shape != (len(x), *inner):
            raise ValueError(f"its noise has shape {noise.shape}: needs {(len(x), *inner)}, a row per sample")
        if noise.dtype.kind not in "iuf":
            raise ValueError(f"its noise has type {noise.dtype}: needs numbers")
        z = torch.as_tensor(noise).float()
        if not z.isfinite().all():
            raise ValueError("its noise is not finite")
        levels = _levels(held)
        if levels != data.transform.num_levels:
            kinds = [f"with {count} levels" if count else "continuous" for count in (levels, data.transform.num_levels)]
            raise ValueError(f"its samples are {kinds[0]}, the data {kinds[1]}: these are pairs of another kind of run")
        if (sizes is None) != (data.sizes is None):
            found, wanted = ("one size", "unequal size") if sizes is None else ("unequal size", "one size")
            raise ValueError(
                f"its samples are of {found}, the data of {wanted}: these are pairs of another kind of run"
            )
        cond = _conditions(held, labels, data, model)
        return paired(data, x, z, cond, sizes, _states(held, data))


def _states(held: FileOfArrays, data: Dataset) -> Tensor | None:
    """The pairs' samples in model units, of data in latents; None of others, whose samples tell them."""
    if not data.transform.learned:
        return None
    if str(held.others.get("transform", "")) != data.transform.digest:
        raise ValueError(
            "its samples are not of latents of this autoencoder: these are pairs of another run; draw them with --mode "
            "pairs of the run whose weights training begins with"
        )
    return torch.as_tensor(held.others["state"]).float()


def _levels(held: FileOfArrays) -> int | None:
    """How many levels the pairs' samples have; None where they are continuous."""
    levels = held.others.get("levels", np.array(0))
    if levels.ndim or levels.dtype.kind not in "iu":
        raise ValueError(
            f"its levels have type {levels.dtype} and shape {levels.shape}: needs one whole number, 0 for continuous "
            "samples"
        )
    return int(levels) or None


def _conditions(held: FileOfArrays, labels: Tensor | None, data: Dataset, model: Denoiser) -> Condition:
    """What the model is told of each pair."""
    found: dict[str, Any] = {}
    if model.num_classes is not None:
        if labels is None:
            raise ValueError(
                f"it has no labels, and the model is told of {model.num_classes} classes: draw pairs of a run that is "
                "told of them, or set config.model.conditional=False"
            )
        check_labels(labels, data.num_classes)
        found["labels"] = labels
    for kind, shape in model.conditions.items():
        if kind not in held.others:
            raise ValueError(f"it has no array {kind!r}, which the model is told of: these are pairs of another run")
        found[kind] = condition_array(kind, held.others[kind], len(held.x))
        if tuple(found[kind].shape[1:]) != tuple(shape):
            raise ValueError(f"its {kind} has shape {tuple(found[kind].shape[1:])} per pair, the data {tuple(shape)}")
    return found
