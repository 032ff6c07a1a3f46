"""A graph that is none: the operations of a function, recorded with the tensors they read and wrote, and done again.

As a captured CUDA graph it knows no Python: numbers are constants, memory stays where it was, and whoever reads a value
back ends the capture with an error, but for times, which are float64 and would lie on the CPU there.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READING = ("_local_scalar_dense", "equal", "nonzero", "masked_select")


class Recording(TorchDispatchMode):
    """The operations inside, in ``done``."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name.removeprefix("aten::") in READING and args[0].dtype != torch.float64:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        found = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, found))
        return found


def graph(function, device=None):
    """A function as such a graph: what does it again, and its result, which is not there before."""
    with Recording() as recording:
        result = function()

    def replay():
        for func, args, kwargs, outputs in recording.done:
            again = func(*args, **kwargs)
            for held, new in zip(tree_leaves(outputs), tree_leaves(again), strict=True):
                # Views and what is changed in place are there already.
                if isinstance(held, torch.Tensor) and held.data_ptr() != new.data_ptr():
                    held.copy_(new)

    result.fill_(torch.nan)
    return replay, result
