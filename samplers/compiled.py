"""Compiled networks: the bodies of networks inside a model as graphs, in a block, and as they were behind it."""

import copy
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samplers.checks import tensor_like

BACKEND = "inductor"
"""torch's own compiler, the only one that needs another program."""


@contextmanager
def compiled(model: nn.Module, varying: bool = False, backend: str | Callable[..., Any] = BACKEND) -> Iterator[None]:
    """The networks inside a score model compiled, each to one graph for all steps, times and numbers of rows.

    What is compiled are the model's ``bodies`` (samplers.protocol), of all that it wraps as well; preconditioning,
    guidance and steps stay as they are, and so does a network through which is differentiated. Names of parameters do
    not change. Behind the block bodies are as before; one that somebody else has compiled stays theirs throughout. To
    enter it again costs nothing, as torch keeps the graphs. On CUDA they are captured, unless the number of rows is
    ``varying``, as that of adaptive solvers is. ``backend`` is that of ``torch.compile``. Raises ValueError for a model
    without bodies, where torch lacks a compiler, and at the first call for a network that torch cannot compile.
    """
    found = list(dict.fromkeys(bodies(model)))
    if not found:
        raise ValueError(
            f"compile: {type(model).__name__} names no network to be compiled; leave it out, or give the model "
            "`bodies()` (see samplers.protocol)"
        )
    device = tensor_like(model).device
    lack = lacking(device) if backend == BACKEND else None
    if lack:
        raise ValueError(f"compile: {lack}")
    mine = [body for body in found if not is_compiled(body)]
    for body in mine:
        body._compiled_call_impl = CompiledBody(body, device.type == "cuda" and not varying, backend)
    try:
        yield
    finally:
        for body in mine:
            body._compiled_call_impl = None


def bodies(model: nn.Module) -> Iterator[nn.Module]:
    """What the modules inside a model name as bodies of networks."""
    for module in model.modules():
        named: Any = getattr(module, "bodies", None)
        if callable(named):
            yield from named()


def is_compiled(body: nn.Module) -> bool:
    """Whether ``torch.compile(body)`` or ``body.compile()`` was called."""
    return hasattr(body, "_orig_mod") or getattr(body, "_compiled_call_impl", None) is not None


def lacking(device: torch.device) -> str | None:
    """What torch lacks to compile for a device, as a sentence with the remedy; None where nothing does."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "needs triton on CUDA, and it is not there: install it, or leave `compile` out"
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception:
        return (
            "needs a C++ compiler, g++ or the one that CXX names, and there is none: install it, or leave `compile` out"
        )
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return None if headers.exists() else f"needs {headers}: install Python's headers, or leave `compile` out"


class CompiledBody:
    """The call of a body as a graph: one with a free number of rows, or ``captured`` one for each number of rows."""

    def __init__(self, body: nn.Module, captured: bool, backend: str | Callable[..., Any] = BACKEND) -> None:
        self.body, self.captured = body, captured
        mode = "reduce-overhead" if captured and backend == BACKEND else None
        self.graph = torch.compile(body._call_impl, backend=backend, mode=mode, dynamic=False if captured else None)
        self.works, self.several = False, False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        rows = len(next(a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)))
        self.several = self.several or rows > 1
        # torch gives one row a graph of its own, which a run that has had more does not wait for.
        doubled = rows == 1 and self.several and not self.captured

        def given(x: Tensor) -> Tensor:
            if doubled:
                x = torch.cat([x, x])
            elif 0 in x.stride():
                # One number for all rows: torch compiles anew for another layout of memory.
                x = x.new_empty(x.shape).copy_(x)
            if not self.captured and x.ndim and len(x) > 1:
                torch._dynamo.maybe_mark_dynamic(x, 0)
            return x

        output = self._called(_mapped(given, args), _mapped(given, kwargs))
        return output[:1] if doubled else output

    def _called(self, args: tuple, kwargs: dict) -> Any:
        if self.works:
            return self._replayed(args, kwargs)
        try:
            output = self._replayed(args, kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # What the network itself refuses is told in its own words.
            self.body._call_impl(*args, **kwargs)
            inner = getattr(error, "inner_exception", error)
            reason = f"{type(inner).__name__}: {str(inner).strip().partition(chr(10))[0]}"
            raise ValueError(
                f"compile: torch cannot compile {type(self.body).__name__} ({reason}); leave `compile` out"
            ) from error
        self.works = True
        return output

    def _replayed(self, args: tuple, kwargs: dict) -> Any:
        if not self.captured:
            return self.graph(*args, **kwargs)
        # What a captured graph returns it writes over at its next call.
        torch.compiler.cudagraph_mark_step_begin()
        return _mapped(torch.clone, self.graph(*args, **kwargs))


def _mapped(function: Callable[[Tensor], Tensor], held: Any) -> Any:
    """What is held in tuples and dicts of any kind, with ``function`` of each tensor in its place."""
    if isinstance(held, Tensor):
        return function(held)
    if isinstance(held, tuple):
        return tuple(_mapped(function, part) for part in held)
    if isinstance(held, dict):
        # Of the same kind, which may have a meaning.
        found = copy.copy(held)
        found.update({name: _mapped(function, part) for name, part in held.items()})
        return found
    return held
