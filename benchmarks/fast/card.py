"""The card: what it reaches at best, and what a computation needs of that."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.measure import interleaved
from benchmarks.sections import Setting
from samplers.numerics.precision import Switch, full_precision


@dataclass(frozen=True)
class Limits:
    """Operations per second of matrix products by the name of their precision, and bytes per second of a copy, read
    and written."""

    peaks: dict[str, float]
    bandwidth: float

    def roof(self, work: "Work", precision: str) -> dict[str, float]:
        """Milliseconds that the operations and the bytes of some work take at best."""
        return {
            "ms by operations": 1000 * work.operations / self.peaks[precision],
            "ms by bytes": 1000 * work.bytes / self.bandwidth,
        }


@dataclass(frozen=True)
class Work:
    """Operations of matrix products and convolutions, and bytes that go through memory where each of torch's operations
    reads its inputs and writes its outputs once: what is fused moves less."""

    operations: float
    bytes: float

    def beyond(self, more: "Work", times: float) -> "Work":
        """The work on more items: what ``more`` adds to this, added that many times; for weights it is the same."""
        operations, moved = more.operations - self.operations, more.bytes - self.bytes
        return Work(self.operations + times * operations, self.bytes + times * moved)


class Moved(TorchDispatchMode):
    """Counts the bytes of the inputs and outputs of operations, views and allocations left out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if not view and "empty" not in func._schema.name:
            seen = {id(a): a for a in tree_leaves((args, kwargs, out)) if isinstance(a, Tensor)}
            self.bytes += sum(a.numel() * a.element_size() for a in seen.values())
        return out


def attention_of_cpus() -> dict:
    """How to count the operations of attention's kernels for CPUs, which torch does not by itself."""
    kernels, counts = torch.ops.aten, (flop_counter.sdpa_flop_count, flop_counter.sdpa_backward_flop_count)
    names = "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward"
    # q, k and v, of which the backward pass has the gradient before it.
    return {
        getattr(kernels, name): lambda *shapes, count=count, given=given, **options: count(*shapes[:given])
        for name, count, given in zip(names, counts, (3, 4), strict=True)
    }


def work_of(function: Callable[[], object]) -> Work:
    """What function() does, counted."""
    counter = flop_counter.FlopCounterMode(display=False, custom_mapping=attention_of_cpus())
    with counter as flops, Moved() as moved:
        function()
    return Work(flops.get_total_flops(), moved.bytes)


def matrices_in_tf32():
    """A context in which matrix products of float32 on CUDA may take TF32, as convolutions do anyway."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        return Switch(matmul, "fp32_precision", "tf32").on()
    return Switch(matmul, "allow_tf32", True).on()


@contextmanager
def precise(precision: str) -> Iterator[None]:
    """The setting of torch that a precision by its name needs beside the types of tensors."""
    with ExitStack() as stack:
        if precision == "float32":
            stack.enter_context(full_precision())
        if precision == "TF32":
            stack.enter_context(matrices_in_tf32())
        yield


@cache
def limits(setting: Setting) -> Limits:
    """What the device reaches, measured."""
    size, device = setting.of(8192, 512), setting.device
    peaks = {}
    for precision, dtype in {"bfloat16": torch.bfloat16, "TF32": torch.float32, "float32": torch.float32}.items():
        if precision == "TF32" and device.type != "cuda":
            continue
        # Of random numbers: of zeros it is faster.
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        with precise(precision):
            taken = interleaved({"product": lambda a=a, b=b: a @ b}, device, setting.of(10, 3))
        peaks[precision] = 2 * size**3 / taken["product"]
    source = torch.randn(setting.of(2**29, 2**22), device=device)
    copy = interleaved({"copy": source.clone}, device, 5)["copy"]
    return Limits(peaks, 2 * source.nbytes / copy)


def card(setting: Setting) -> Iterator[dict]:
    """What the device reaches at best: products of square matrices, and a copy, bytes read and written."""
    found = limits(setting)
    for precision, peak in found.peaks.items():
        yield {"of": f"matrix product, {precision}", "TFLOP/s": peak / 1e12}
    yield {"of": "copy", "GB/s": found.bandwidth / 1e9}
