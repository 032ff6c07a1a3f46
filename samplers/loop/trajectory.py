"""Trajectories: states and predictions of a run on its way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.checks import check_integer
from samplers.protocol import is_flow_map


@dataclass(frozen=True)
class Trajectory:
    """Network calls spread evenly over a run's steps: ``denoised[j]`` = D(``x[j]``, ``times[j]``).

    ``times`` (k,) in float64; ``x`` and ``denoised`` (k, n, *event) on the CPU. The first is that of the start (of the
    first arrival for annealed Langevin, which asks the network there); the last that of the closing denoising call,
    whose prediction is the sample, also where a sampler has a last call of its own. From ``generate`` both are in data
    units: ``denoised`` continuous, before quantized data are floored; ``x`` mapped as data are, whatever alpha, so that
    ``transform.encode`` gives back x_t.
    """

    times: Tensor
    x: Tensor
    denoised: Tensor


def check_path(count: int, steps: int, model: object) -> None:
    """Raise ValueError unless a run of ``steps`` steps of a model has ``count`` states to show, each with what it
    predicts of the data."""
    check_integer("path", count, 2)
    if is_flow_map(model):
        raise ValueError(
            "path: a flow map predicts no data on its way, as score models do; leave path out, a callback sees every "
            "state"
        )
    if count > steps + 1:
        raise ValueError(f"path = {count}: a run of {steps} steps has {steps + 1} states")


class Recorder:
    """Keeps ``count`` of the calls of a model that a run of ``steps`` steps makes anyway, each the first of its step.

    A watch on the model (see samplers.calls) tells ``see`` of its calls; ``arrive`` is told of every step made. Calls
    on a part of the batch of ``rows`` are left out. Nothing is read back from the device before ``trajectory``.
    """

    def __init__(self, steps: int, count: int, rows: int) -> None:
        self.rows = rows
        self.wanted = {j * steps // (count - 1) for j in range(count)}
        self.armed, self.asked = True, 1
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def arrive(self, step: int, last: bool) -> None:
        """``step`` steps were made; ``last`` if the callback ends the run there."""
        due = last or step in self.wanted
        self.armed, self.asked = self.armed or due, self.asked + due

    def see(self, x: Tensor, t: Tensor, output: Tensor) -> None:
        """The model was called at x and t."""
        if self.armed and len(x) == self.rows:
            self.armed = False
            # Copies: a sampler is free to write into its own tensors.
            self.seen.append((t.reshape(-1)[:1], x.detach().clone(), output.detach().clone()))

    def end(self, x: Tensor) -> None:
        """The run ended with x (B, *inner), which takes the place of what the model said at its last call."""
        t, state, _ = self.seen[-1]
        self.seen[-1] = t, state, x.detach().clone()

    def trajectory(self, rows: int, decode: Callable[[Tensor], Tensor]) -> Trajectory:
        """What was seen of the first ``rows`` rows, decoded where it is, then on the CPU. Outputs of another shape than
        the state's, which no transform knows, stay as they are."""
        if len(self.seen) != self.asked:
            raise ValueError(
                f"path: this sampler solves each sample alone or skips the network, so that only {len(self.seen)} of "
                f"{self.asked} states have a prediction for all; leave path out, a callback sees every state"
            )
        times, states, outputs = [], [], []
        for t, x, output in self.seen:
            times.append(t)
            states.append(decode(x[:rows]))
            outputs.append(decode(output[:rows]) if output.shape == x.shape else output[:rows])
        return Trajectory(torch.cat(times).cpu().double(), *(torch.stack(kept).cpu() for kept in (states, outputs)))


def join(parts: Sequence[Trajectory]) -> Trajectory:
    """The trajectories of a run's chunks side by side."""
    if not all(torch.equal(part.times, parts[0].times) for part in parts):
        raise ValueError("path: the callback must end every chunk of samples at the same step")
    return Trajectory(parts[0].times, *(torch.cat([getattr(p, name) for p in parts], 1) for name in ("x", "denoised")))
