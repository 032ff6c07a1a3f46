"""Files of token vectors: a table (tokens, width) in a .safetensors, .npy or .npz file."""

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sde.files import expanded


def read_vectors(name: str) -> Tensor:
    """The table (tokens, width) of a file, in its own type of floats: the only array of two axes in it. Raises
    ValueError for a file without one, with several, or with numbers that are not finite."""
    given, path = f"vectors = {name!r}", Path(expanded(name))
    if not path.is_file():
        raise ValueError(f"{given} does not exist (looked in {Path.cwd()}): needs a .safetensors, .npy or .npz file")
    try:
        if path.suffix.lower() == ".safetensors":
            arrays = load_file(path)
        else:
            loaded = np.load(path, allow_pickle=False)
            held = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"table": loaded}
            arrays = {key: torch.from_numpy(x) for key, x in held.items() if x.dtype.kind == "f"}
    # numpy and zipfile raise many unrelated exceptions for damaged files.
    except (SafetensorError, OSError, ValueError, TypeError, EOFError) as error:
        raise ValueError(f"{given} is not a readable .safetensors, .npy or .npz file ({error})") from None
    tables = {key: x for key, x in arrays.items() if x.ndim == 2 and x.is_floating_point()}
    if len(tables) != 1:
        found = ", ".join(f"{key} {tuple(x.shape)}" for key, x in arrays.items()) or "no floats"
        raise ValueError(f"{given} holds {found}: needs one table of floats, (tokens, width)")
    (table,) = tables.values()
    if not bool(table.isfinite().all()):
        raise ValueError(f"{given} holds numbers that are not finite")
    # What float32 cannot tell apart need not be kept.
    return table.float() if table.dtype == torch.float64 else table.contiguous()
