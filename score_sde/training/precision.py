"""Precision and memory format of the network in training: what the machine does fastest, found by trying."""

from dataclasses import replace
from functools import partial
from itertools import product

from score_sde.config.options import MEMORY_FORMATS, PRECISIONS, PrecisionOptions
from score_sde.run.device import arrange
from score_sde.run.trial import TRIAL_SECONDS, Trial, fastest
from score_sde.training.rehearsal import Rehearsal, few
from sde.device import forked_random
from sde.distributed.world import body_of
from sde.training.trainer import Trained

LEAST_PARAMETERS = 1_000_000
"""Parameters below which nothing is tried: such a run is over soon, and does not depend on a clock."""


def settle(training: Rehearsal) -> PrecisionOptions:
    """Set the model's precision and memory format to those asked for, of which "auto" becomes what a trial finds
    fastest, the first process's; returns what was set."""
    run, model, options = training.run, training.model, training.options
    asked = run.config.training.speed
    precisions = [*PRECISIONS] if asked.precision == "auto" else [asked.precision]
    formats = [*MEMORY_FORMATS] if asked.memory_format == "auto" else [asked.memory_format]
    if options.parallel == "fsdp" and run.world.size > 1:
        if asked.memory_format == "channels_last":
            raise ValueError(
                "config.training.memory_format = 'channels_last': weights that config.training.parallel = 'fsdp' "
                "splits are contiguous; set it to contiguous"
            )
        # Nothing is tried: it would be with the whole network on each device.
        formats, precisions = formats[:1], precisions[-1:] if run.device.type == "cuda" else precisions[:1]
    if sum(p.numel() for p in model.parameters()) < LEAST_PARAMETERS:
        precisions, formats = precisions[:1], formats[:1]
    choices = [*product(precisions, formats)]
    chosen = choices[0]
    if len(choices) > 1:
        print(f"trying {len(choices)} ways to train, for the fastest ...", flush=True)
        trial = run.world.all_gather(_try(training, choices))[0]
        chosen = next(choice for choice in choices if _named(choice) == trial.chosen)
        print(f"a training pass takes {trial}; training in {trial.chosen}")
    apply(model, *chosen)
    precision, memory_format = chosen
    return replace(asked, precision=precision, memory_format=memory_format)


def apply(model: Trained, precision: str, memory_format: str) -> None:
    """Set the dtype of the network's body and the memory format of its weights."""
    model.autocast = PRECISIONS[precision]
    arrange(body_of(model), memory_format)


def _named(choice: tuple[str, str]) -> str:
    return " ".join(choice)


def _try(training: Rehearsal, choices: list[tuple[str, str]]) -> Trial:
    """The trial of a forward and backward pass of a few items; the model's weights stay as they are."""
    model, device = training.model, training.run.device
    passes, most = training.passes()
    by_name = {_named(choice): choice for choice in choices}
    with forked_random(device):
        apply(model, *choices[0])
        count = few(passes, most, device)
        return fastest(
            dict.fromkeys(by_name, partial(passes, count)),
            seconds=TRIAL_SECONDS,
            prepare=lambda name: apply(model, *by_name[name]),
            device=device,
        )
