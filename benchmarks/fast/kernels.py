"""Kernels: how much of a run they take, and how much lies between them."""

from collections.abc import Iterable, Iterator

from torch.profiler import ProfilerActivity, profile

from benchmarks.fast.sampling import STEPS
from benchmarks.fast.subject import subject
from benchmarks.sections import LeftOut, Setting
from samplers import SAMPLERS, generate
from score_sde.training.precision import apply


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """How long at least one of some spans of time lasts."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def kernels(setting: Setting) -> Iterator[dict]:
    """The time between kernels in a 20-step run of dpmpp, by the profiler: the CPU did not start the next one in time.

    On a CPU of torch's own operations, between which there is Python.
    """
    cuda = setting.device.type == "cuda"
    for name, precision in (("cifar10", "bfloat16"), ("digits", "float32"), ("points", "float32")):
        held = subject(name, setting, 256)
        apply(held.model, precision, "channels_last" if name == "cifar10" else "contiguous")
        steps, event = setting.of(STEPS, 3), held.data.event_shape

        def run(held=held, steps=steps, event=event) -> None:
            generate(held.model, SAMPLERS["dpmpp"](), held.batch, event, steps=steps)

        run()
        with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as seen:
            run()
        events = [
            event
            for event in seen.events()
            if (event.device_type.name == "CUDA" if cuda else event.cpu_parent is None and "::" in event.name)
        ]
        if not events:
            raise LeftOut("the profiler sees no kernels here")
        spans = [(event.time_range.start, event.time_range.end) for event in events]
        whole, busy = max(end for _, end in spans) - min(start for start, _ in spans), covered(spans)
        yield {
            "model": f"{name}, {held.batch} items, {precision}",
            "kernels" if cuda else "operations": len(spans),
            "ms": whole / 1000,
            "ms between them": (whole - busy) / 1000,
            "busy": f"{busy / whole:.1%}",
        }
