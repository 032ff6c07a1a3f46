"""Fitting: the loop that repeats a trainer's step, watches its numbers and calls back."""

from collections import deque
from collections.abc import Callable

import torch

from sde.device import double, forked_random
from sde.training.trainer import StepResult, Trainer

Callback = Callable[[int, StepResult], None]

SKIP_WINDOW, MAX_SKIPPED = 100, 10
"""A run stops where this many of its last steps, ``SKIP_WINDOW``, were skipped."""


def fit(
    trainer: Trainer,
    callbacks: list[tuple[int, Callback]],
    read_every: int = 20,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Optimise to the last step, or until ``stop()``; whether it came to the end.

    A callback (n, function) is called with the step and what the steps since its last call did, stacked and on the CPU,
    every n steps and at the end. Numbers are read from the device every ``read_every`` steps, and before every
    callback; several processes ask ``stop`` only then. Raises FloatingPointError where MAX_SKIPPED of the last
    SKIP_WINDOW steps were skipped; it names step, noise level and parameter.
    """
    pending: list[StepResult] = []
    unseen: list[list[StepResult]] = [[] for _ in callbacks]
    bad: deque[int] = deque()
    last = trainer.options.steps
    if trainer.step < last and trainer.world.any(stop(), trainer.device):
        return False
    with forked_random(trainer.device):
        while trainer.step < last:
            pending.append(trainer.training_step())
            due = [i for i, (every, _) in enumerate(callbacks) if trainer.step % every == 0 or trainer.step == last]
            reading = bool(due) or len(pending) >= read_every
            stopped = trainer.world.any(stop(), trainer.device) if reading else trainer.world.size == 1 and stop()
            if not (reading or stopped):
                continue
            steps = _stacked(pending)
            pending.clear()
            _watch(trainer, steps, bad)
            for part in unseen:
                part.append(steps)
            for i in due:
                callbacks[i][1](trainer.step, StepResult(*map(torch.cat, zip(*unseen[i], strict=True))))
                unseen[i].clear()
            if stopped:
                return trainer.step == last
    return True


def _stacked(steps: list[StepResult]) -> StepResult:
    return StepResult(*(torch.stack(values).cpu() for values in zip(*steps, strict=True)))


def _watch(trainer: Trainer, steps: StepResult, bad: deque[int]) -> None:
    start = trainer.step - len(steps.skipped)
    for row in steps.skipped.nonzero().flatten().tolist():
        trainer.skipped += 1
        bad.append(start + row + 1)
        while bad[0] <= bad[-1] - SKIP_WINDOW:
            bad.popleft()
        if len(bad) == MAX_SKIPPED:
            raise FloatingPointError(_diagnosis(trainer, steps, row, bad[-1]))


def _diagnosis(trainer: Trainer, steps: StepResult, row: int, step: int) -> str:
    # The worst item: one whose loss is not finite if there is one, else that of the largest loss.
    losses = steps.losses[row].nan_to_num(nan=torch.inf)
    item = int(losses.argmax())
    worst = trainer.world.all_gather((losses[item].item(), steps.times[row][item].item()))
    t, sde = double(max(worst)[1]), getattr(trainer.module, "sde", None)
    at = "" if sde is None else f", at noise level sigma / alpha = {sde.noise_level(t):.3g} (t = {t:.3g})"
    where = "the loss alone"
    if not steps.norm[row].isfinite():
        named = [name for name, p in trainer.trained.items() if p.grad is not None]
        where = f"the gradient of {named[steps.hit[row]]} first"
    return (
        f"{MAX_SKIPPED} of the last {SKIP_WINDOW} steps were skipped because they were not finite, the last one step "
        f"{step}{at}, in {where}: "
        f"try a smaller `lr` than {trainer.options.lr:g}, or look at the data"
    )
