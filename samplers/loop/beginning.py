"""The beginning of a run: its times, and what it begins with, at the first of them."""

import math

import torch
from torch import Tensor

from samplers.checks import check_data, check_state, data_dtype
from samplers.grid import check_noise_end, check_times, make_grid, make_jumps
from samplers.host import as_tensor
from samplers.padding import cut
from samplers.protocol import FlowMap, Process, asks_of, transform_of
from samplers.step import Sampler


def check_starts(start: Tensor | None, start_time: float | None, start_state: Tensor | None) -> None:
    """Raise ValueError unless a run begins in one way: at pure noise, at data with their time, or at states."""
    if start is not None and start_state is not None:
        raise ValueError(
            "start and start_state were given: a run begins at data with noise added, or at a state as it is"
        )
    if (start is not None) != (start_time is not None):
        given, missing = ("start_time", "start") if start is None else ("start", "start_time")
        raise ValueError(f"{given} was given without {missing}: a run from data needs both, the data and their time")


def times_of(
    sde, sampler: Sampler, steps: int | None, grid: str | Tensor | None, start_time: float | None, from_state: bool
) -> Tensor:
    """The times of a run, from start_time where it starts at data; of a state that is given, from anywhere."""
    if start_time is not None and not sde.t_min < start_time <= sde.t_max:
        raise ValueError(f"start_time = {start_time:g}: needs a time above t_min = {sde.t_min:g}, up to {sde.t_max:g}")
    grid = sampler.grid if grid is None else grid
    if not isinstance(grid, str):
        times = check_times(grid, sde)
        if steps is not None and steps != len(times) - 1:
            raise ValueError(f"steps = {steps}: grid has {len(times) - 1} steps of its own; leave steps out")
        if start_time is not None and not math.isclose(times[0], start_time, rel_tol=1e-6):
            raise ValueError(f"start_time = {start_time:g}: grid starts at {times[0]:g}; they must be the same")
        if start_time is None and not from_state:
            check_noise_end(sde, times[0])
        return times
    make = make_jumps if asks_of(sampler) is FlowMap else make_grid
    return make(sde, grid, sampler.steps if steps is None else steps, start_time)


def checked_states(state: Tensor, shape: tuple[int, ...], model, like: Tensor) -> Tensor:
    """The states (n, *inner) that a run begins with, checked, in the dtype of states."""
    state = as_tensor(state, "start_state")
    if state.shape != shape:
        raise ValueError(
            f"start_state has shape {tuple(state.shape)}: needs {shape}, one row for each of the n samples, in model "
            "units"
        )
    kind = model.sde.state_dtype(like.dtype)
    state = state.to(kind) if state.is_floating_point() and kind.is_floating_point else state
    check_state(state, model, "start_state")
    return state


@torch.no_grad()
def encoded_start(start: Tensor, shape: tuple[int, ...], model, like: Tensor, sizes: Tensor | None) -> Tensor:
    """start (n, *event) from data units to model units, checked."""
    start = as_tensor(start, "start")
    if start.shape != shape:
        raise ValueError(f"start has shape {tuple(start.shape)}: needs {shape}, one row for each of the n samples")
    process: Process = model.sde
    kind = process.state_dtype(like.dtype)
    start = cut(start.to(data_dtype(model, kind)), sizes)
    check_data(start, model, "start")
    transform = transform_of(model)
    # Quantized data stand for the cells above them, [x, x + 1): here for their middle.
    return transform.encode(transform.dequantize(start, 0.5)).to(kind)
