"""Compiling the network that is trained: whether it pays, found by trying once per run."""

import time
from dataclasses import replace

import torch

from samplers.compiled import attach, detach, lacking
from score_sde.config.naming import with_keys
from score_sde.config.options import PrecisionOptions
from score_sde.run.folder import Run
from score_sde.run.trial import TRIAL_SECONDS, Trial, fastest
from score_sde.training.precision import LEAST_PARAMETERS, settle
from score_sde.training.rehearsal import Rehearsal, few
from sde.device import forked_random, wait_for
from sde.distributed.world import body_of

LEAST_SECONDS = 900.0
"""Seconds of training below which nothing is tried: to compile takes one or two minutes, and saves a part of them."""


def settled(training: Rehearsal) -> Run:
    """The run with the precision, the memory format and the compiling that are settled for its training."""
    run = training.run.with_speed(settle(training))
    return run.with_speed(settle_compiling(replace(training, run=run)))


def settle_compiling(training: Rehearsal) -> PrecisionOptions:
    """Compile the model's network in place, where ``compile`` says so; "auto" becomes what a trial finds, the first
    process's, and stays where none was made. Returns what was set. ``settle`` comes first.

    Nothing is tried for small networks, for runs shorter than LEAST_SECONDS, and where torch cannot compile. Raises
    ValueError where compiling is asked for and torch cannot, or weights are split over processes.
    """
    run, model, options = training.run, training.model, training.options
    asked = run.config.training.speed
    split = options.parallel == "fsdp" and run.world.size > 1
    # Captured gradients would lie where those of the next part are written.
    alone = run.world.size == 1 and options.gradient_accumulation == 1
    captured = run.device.type == "cuda" and alone
    compile = asked.compile
    small = sum(p.numel() for p in model.parameters()) < LEAST_PARAMETERS
    tried = compile == "auto" and not (split or small)
    # To find out takes a second.
    lack = lacking(run.device) if tried or compile == "on" else None
    if compile == "on" and (split or lack):
        with with_keys("training"):
            raise ValueError(
                "compile = 'on': weights that `parallel` = 'fsdp' splits are not compiled; set it to off"
                if split
                else f"compile: {lack}"
            )
    if tried and not lack:
        trial = run.world.all_gather(_try(training, captured))[0]
        if trial is not None:
            compile = "on" if trial.chosen == "compiled" else "off"
            print(f"a training pass takes {trial}; training {'compiled' if compile == 'on' else 'as it is'}")
        if compile == "off":
            # torch keeps the graphs, and on CUDA the memory that they were captured in.
            torch.compiler.reset()
    if compile == "on":
        attach(body_of(model), captured)
    return replace(asked, compile=compile)


def _try(training: Rehearsal, captured: bool) -> Trial | None:
    """The trial of a pass of a few items, eager and compiled, or None where the run is too short to make one."""
    run, model, options = training.run, training.model, training.options
    passes, most = training.passes()
    with forked_random(run.device):
        # A captured graph is one of its number of items.
        count = most if captured else few(passes, most, run.device)
        wait_for(run.device)
        begin = time.perf_counter()
        passes(count)
        wait_for(run.device)
        each = (time.perf_counter() - begin) / count
        if each * options.steps * options.batch_size / run.world.size < LEAST_SECONDS:
            return None
        print("trying whether a compiled network trains faster ...", flush=True)

        def prepare(name: str) -> None:
            detach(body_of(model))
            if name == "compiled":
                attach(body_of(model), captured)

        ways = dict.fromkeys(("eager", "compiled"), lambda: passes(count))
        try:
            return fastest(ways, seconds=TRIAL_SECONDS, min_speedup=1.05, prepare=prepare, device=run.device)
        finally:
            detach(body_of(model))
