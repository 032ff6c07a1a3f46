"""Compiling the networks of a run for a command: whether it pays, found by trying once, and kept in the run folder."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import torch

from samplers import compiled
from samplers.calls import evaluating
from samplers.checks import score_models, tensor_like
from samplers.compiled import bodies, lacking
from samplers.loop.captured import is_small
from samplers.protocol import is_flow_map, transform_of
from score_sde.config.naming import with_keys
from score_sde.run.folder import Run
from score_sde.run.lock import one_writer
from score_sde.run.trial import TRIAL_SECONDS, Trial, fastest
from sde import ScoreModel
from sde.device import wait_for
from sde.files import read_json, write_json

FLAG = {"compile": "--compile"}
"""What the library calls compiling is the flag."""

LEAST_SECONDS = 300.0
"""Seconds of network calls below which nothing is tried: to compile takes up to a minute, and saves a part of them."""

FEW_ROWS = 8
"""Rows by which the time of a call is guessed."""

CALL_SECONDS = 0.2
"""Seconds of a call that is tried: the shorter it is, the more turns there are."""


@contextmanager
def compiling(run: Run, model: ScoreModel, varying: bool = False) -> Iterator[None]:
    """The networks of a model compiled, where the command says "on". "auto" leaves them as they are: where a solver
    chooses its own steps, it is not known how many calls would have to earn it back."""
    with with_keys(**FLAG), compiled(model, varying) if run.compile == "on" else nullcontext():
        yield


def pays(run: Run, model: ScoreModel, event_shape: tuple[int, ...], rows: int, calls: float | None) -> bool:
    """Whether to compile the networks of a model that is called so many times with so many rows; None is not known.

    What the command says, and where that is "auto", what a trial found: they are compiled where the calls, each of them
    faster, earn back the time of compiling. Nothing is tried where the calls take less than LEAST_SECONDS, where torch
    cannot compile, where there is no network, or several processes, which would wait for each other; nor of small
    networks on CUDA, of which runs would be captured as a whole, which a trial of calls says nothing about.
    """
    if run.compile != "auto":
        return run.compile == "on"
    if run.device.type == "cuda" and is_small(model):
        return False
    if calls is None or run.world.size > 1 or not [*bodies(model)]:
        return False
    few = min(rows, FEW_ROWS)
    guess = min(_seconds(run, model, event_shape, few) for _ in range(2)) * rows / few
    # What torch lacks is asked last: to ask takes longer than a short run.
    if guess * calls < LEAST_SECONDS or lacking(run.device):
        return False
    if run.device.type == "cpu" and guess > CALL_SECONDS:
        # There a call takes as long as it has rows.
        tried = max(few, 2 ** int(rows * CALL_SECONDS / guess).bit_length() // 2)
    else:
        tried = rows
    key, path = _circumstances(run, model, tried), run.folder / "compiled.json"
    known = read_json(path) if path.exists() else {}
    if key in known:
        found = known[key]
        return calls * rows / tried * (found["eager"] - found["compiled"]) > found["compiling"]
    found, trial = _try(run, model, event_shape, tried)
    print(f"a network call of {tried} rows takes {trial}; compiling took {found['compiling']:.0f} s, kept in {path}")
    # What is not kept is found again.
    with suppress(OSError), one_writer(run.folder / ".compiled.lock", "a trial", "wait for its end", wait=True):
        write_json(path, (read_json(path) if path.exists() else {}) | {key: found})
    return trial.chosen == "compiled"


def _try(run: Run, model: ScoreModel, event_shape: tuple[int, ...], rows: int) -> tuple[dict[str, float], Trial]:
    """Seconds of a call, ``eager`` and ``compiled``, the same where no difference is sure, and of ``compiling``."""
    print("trying once whether compiled networks are faster ...", flush=True)

    def in_graphs() -> float:
        with compiled(model):
            return _seconds(run, model, event_shape, rows)

    plain, first = _seconds(run, model, event_shape, rows), in_graphs()
    ways = {"eager": lambda: _seconds(run, model, event_shape, rows), "compiled": in_graphs}
    trial = fastest(ways, seconds=TRIAL_SECONDS, min_speedup=1.0, device=run.device)
    if trial.chosen == "compiled":
        ratio = trial.ratio("compiled").value
    else:
        ratio = 1.0
        # torch keeps the graphs, and on CUDA the memory that they were captured in.
        torch.compiler.reset()
    return {"eager": plain, "compiled": plain / ratio, "compiling": max(0.0, first - plain)}, trial


@torch.no_grad()
def _seconds(run: Run, model: ScoreModel, event_shape: tuple[int, ...], rows: int) -> float:
    """Of a call with some rows of pure noise, those of the batch that the model is bound to."""
    model = model.rows(slice(0, rows))
    inner = transform_of(model).inner_shape(event_shape)
    like, times = tensor_like(model), [torch.tensor(model.sde.t_max, dtype=torch.float64)]
    if is_flow_map(model):
        times.append(torch.tensor(model.sde.t_min, dtype=torch.float64))
    x = like.new_zeros((rows, *inner), dtype=model.sde.state_dtype(like.dtype))
    with evaluating(model):
        wait_for(run.device)
        begin = time.perf_counter()
        model(x, *times)
        wait_for(run.device)
        return time.perf_counter() - begin


def _circumstances(run: Run, model: ScoreModel, rows: int) -> str:
    """What the time of a call depends on, in words."""
    device, kind = run.device, platform.machine()
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    kinds = " of ".join(type(module).__name__ for module in score_models(model))
    return f"{device.type} {kind}, {torch.get_num_threads()} threads, torch {torch.__version__}: {rows} rows, {kinds}"
