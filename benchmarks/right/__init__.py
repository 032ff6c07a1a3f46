"""Right: the project on a device gives what it gives on the CPU."""

from collections.abc import Callable, Iterator
from functools import wraps

import torch

from benchmarks.right.compiling import compiling
from benchmarks.right.densities import densities
from benchmarks.right.guidance import guidance
from benchmarks.right.memory import memory
from benchmarks.right.noises import noises
from benchmarks.right.processes import processes
from benchmarks.right.samplers import plans, precision, samplers
from benchmarks.right.training import resume, training
from benchmarks.right.waiting import prepare, waiting
from benchmarks.sections import Check, Section, Setting
from samplers.numerics.precision import full_precision

__all__ = ["SECTIONS", "prepare"]


def in_float32(section: Callable[[Setting], Iterator[Check]]) -> Callable[[Setting], Iterator[Check]]:
    """A section in which float32 is float32: TF32, which torch takes for convolutions on CUDA, is another type."""

    @wraps(section)
    def run(setting: Setting) -> Iterator[Check]:
        with full_precision(), torch.random.fork_rng():
            yield from section(setting)

    return run


SECTIONS = {
    "noises": Section(in_float32(noises), 4),
    "samplers": Section(in_float32(samplers), 20),
    "guidance": Section(in_float32(guidance), 12),
    "densities": Section(in_float32(densities), 15),
    "plans": Section(in_float32(plans), 8),
    "waiting": Section(in_float32(waiting), 6),
    "training": Section(in_float32(training), 8),
    "resume": Section(in_float32(resume), 6),
    "processes": Section(in_float32(processes), 8),
    "memory": Section(in_float32(memory), 4),
    "compiling": Section(in_float32(compiling), 15),
    "precision": Section(in_float32(precision), 4),
}
