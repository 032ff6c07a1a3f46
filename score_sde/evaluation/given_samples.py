"""Given samples: those in a file, and what is refused of them before they are measured."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from score_sde.config.naming import with_flag
from score_sde.metrics.metric import MIN_ITEMS
from sde.condition.tree import check_labels
from sde.data import Dataset, existing
from sde.data.array_files import array_tensor
from sde.data.arrays import read_array
from sde.data.labels import known_labels
from sde.data.sizes import as_sizes, cut
from sde.data.statistics import measure

OTHER_UNITS = 10.0
"""Times as far as the data, or as near, that samples spread where their units must be others."""


def read_samples(name: str) -> tuple[Path, Tensor, Tensor | None, Tensor | None]:
    """The path, the samples (n, *event), the classes that were asked for (n,) and the sizes (n,), or None, of the .npz
    of --mode sample or of another file of arrays. What is padded is 0."""
    path = existing(name, "--samples_file")
    if path.is_dir():
        raise ValueError(f"--samples_file={path} is a folder: name a file in it, .npz, .npy or .csv")
    if path.suffix != ".npz":
        x, _, sizes = read_array(path)
        return path, x, None, sizes
    try:
        with np.load(path) as file:
            arrays = dict(file)
    # numpy and zipfile raise many unrelated exceptions for damaged files.
    except Exception as error:
        raise ValueError(f"--samples_file={path} is not a readable .npz file ({error})") from None
    if "x" not in arrays or arrays["x"].dtype.kind not in "iuf" or arrays["x"].ndim < 2:
        raise ValueError(f"--samples_file={path} holds {', '.join(arrays) or 'nothing'}: needs numbers x (n, ...)")
    if "scales" in arrays:
        raise ValueError(f"--samples_file={path} holds samples at several scales: draw them at one")
    x, labels = arrays["x"], arrays.get("labels")
    if labels is not None and (labels.dtype.kind not in "biuf" or labels.shape != x.shape[:1]):
        raise ValueError(
            f"--samples_file={path} holds labels of type {labels.dtype} and shape {labels.shape}: needs {len(x)} "
            "integers, the class that was asked for of each sample, or -1"
        )
    with with_flag("--samples_file", path):
        classes = None if labels is None else known_labels(labels, len(x))
        sizes = as_sizes(arrays.get("sizes"), x.shape)
    samples = array_tensor(x, torch.float64 if x.dtype == np.float64 else torch.float32)
    return path, cut(samples, sizes), classes, sizes


def check_samples(x: Tensor, labels: Tensor | None, data: Dataset, path: Path, sizes: Tensor | None = None) -> None:
    """Raise ValueError for samples x (n, *event) that cannot be held against data: too few, of another shape, not
    finite, or out of the data's range."""
    for what, items in ((str(path), x), ("the split of the data", data)):
        if len(items) < MIN_ITEMS:
            raise ValueError(f"{what} has {len(items)} items: no interval can be trusted for fewer than {MIN_ITEMS}")
    shape, known = tuple(x.shape[1:]), tuple(data.event_shape)
    if shape != known:
        last = shape == known[1:] + known[:1]
        hint = ": its channels are last, they must come first, as --mode sample writes them" if last else ""
        raise ValueError(f"{path} has samples of shape {shape}, the data have {known}{hint}")
    if labels is not None and data.num_classes is not None:
        check_labels(labels, data.num_classes)
    try:
        found = measure(x, sizes=sizes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    levels = data.transform.num_levels
    if levels and not (found.low >= 0 and found.high < levels and found.whole):
        kind = "integers" if found.whole else "fractions"
        raise ValueError(
            f"{path} has {kind} from {found.low:g} to {found.high:g}, the data integers from 0 to {levels - 1}; "
            "give samples in data units, as --mode sample writes them"
        )
    ratio = (found.var.mean() / data.statistics.var.mean()).sqrt().item()
    if not 1 / OTHER_UNITS < ratio < OTHER_UNITS:
        warnings.warn(
            f"{path}: the samples spread {ratio:.2g} times as far as the data: are they in other units?", stacklevel=2
        )
