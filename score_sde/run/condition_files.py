"""Files of conditions: the arrays of an .npz, by kind."""

from collections.abc import Sequence

import numpy as np

from score_sde.config.naming import with_words
from sde.condition.tree import Condition, condition_kinds
from sde.data import existing
from sde.data.arrays import condition_array
from sde.data.labels import known_labels
from sde.model.denoiser import Preconditioned


def read_arrays(file: str, model: Preconditioned, names: Sequence[str]) -> Condition:
    """The arrays of ``--condition`` by kind, as many rows each. Raises ValueError for what the model does not take."""
    takes, flag = condition_kinds(model), f"--condition={file}"
    if not takes:
        raise ValueError(f"{flag}: the model is unconditional; leave it out")
    try:
        with np.load(existing(file, "--condition"), allow_pickle=False) as arrays:
            arrays = dict(arrays)
    # numpy and zipfile raise many unrelated exceptions for damaged files.
    except (OSError, TypeError, AttributeError, EOFError, ValueError) as error:
        raise ValueError(f"{flag} is not a readable .npz of arrays named {', '.join(takes)} ({error})") from None
    for name in arrays:
        if name not in takes:
            raise ValueError(
                f"{flag} holds {name!r}, but the model is conditioned on {' and '.join(takes)}: take it out"
            )
    rows = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(rows.values())) != 1 or not all(rows.values()):
        counts = ", ".join(f"{name} {count}" for name, count in rows.items()) or "no arrays"
        raise ValueError(f"{flag} has rows: {counts}; needs as many in each, and one at least")
    tree = {}
    for name, array in arrays.items():
        with with_words(flag):
            if name == "labels":
                tree[name] = known_labels(array, len(array), names)
            else:
                tree[name] = condition_array(name, array)
    return tree
