"""The training loop: who is called when, what stops it, and what it says then."""

import math

import pytest
import torch

from sde.training.fit import MAX_SKIPPED, fit
from sde.training.loss import denoising_loss
from tests.sde.small_training import trainer


def breaking(run, bad):
    """The trainer's loss, not finite in the steps for which ``bad`` is true, of the item 3."""

    def loss(model, x0, labels, draws):
        spoiled = torch.ones(len(x0))
        spoiled[3] = math.nan if bad(run.step + 1) else 1.0
        return denoising_loss(model, x0, labels, draws) * spoiled

    return loss


def test_callbacks_see_every_step_once():
    run = trainer(20)
    seen = []
    assert fit(run, [(8, lambda step, done: seen.append((step, tuple(done.losses.shape), len(done.norm))))], 5)
    assert seen == [(8, (8, 8), 8), (16, (8, 8), 8), (20, (4, 8), 4)]


def test_a_few_skipped_steps_are_counted():
    run = trainer(200)
    run.loss = breaking(run, lambda step: step % 12 == 0)
    found = []
    fit(run, [(50, lambda step, done: found.append(int(done.skipped.sum())))])
    assert (run.skipped, found) == (16, [4, 4, 4, 4])
    assert all(p.isfinite().all() for p in run.module.parameters())


def test_many_skipped_steps_stop_the_run():
    run = trainer(300)
    run.loss = breaking(run, lambda step: step > 100 and step % 5 == 0)
    with pytest.raises(FloatingPointError) as caught:
        fit(run, [], read_every=1)
    # Of 105, 110, ... the tenth.
    assert (run.step, run.skipped) == (150, MAX_SKIPPED)
    run.step = 149
    level = (-0.5 * run.module.sde.log_snr(run.micro_batch(0)[2].t[3])).exp()
    message = str(caught.value)
    assert "10 of the last 100 steps" in message
    assert "the last one step 150" in message
    assert f"sigma / alpha = {level:.3g}" in message
    assert "the gradient of network.encoder.stem.weight first" in message


@pytest.mark.parametrize("after", [1, 7, 20])
def test_stopping_early(after):
    run, seen = trainer(20), []
    ended = fit(run, [(5, lambda step, done: seen.append(step))], stop=lambda: run.step >= after)
    assert ended == (after == 20)
    assert run.step == after
    assert seen == [step for step in (5, 10, 15, 20) if step <= after]
