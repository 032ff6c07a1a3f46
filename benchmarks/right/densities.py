"""Densities of data and their latents."""

from collections.abc import Iterator

import torch

from benchmarks.sections import Check, Setting
from benchmarks.sides import Side, exact, gap, on_both, trained
from samplers import discrete_bound, encode, likelihood_report, log_likelihood, variational_bound
from samplers.encode import decode

TOLERANCE = 1e-4
"""rtol and atol of the solvers; what they find may differ by ``SLACK`` times it."""

SLACK = 10.0

SOLVER = {"rtol": TOLERANCE, "atol": TOLERANCE}
PER_DIMENSION = {
    "exact likelihood": lambda model, x: log_likelihood(model, x, **SOLVER).nats,
    "probed likelihood": lambda model, x: log_likelihood(model, x, **SOLVER, probes=2).nats,
    "variational bound": lambda model, x: variational_bound(model, x, draws=4).nats,
    "discrete bound": lambda model, x: discrete_bound(model, x, 8, draws=4).nats,
    "likelihood report": lambda model, x: (
        likelihood_report(model, x, **SOLVER, probes=2, subset=2, bound_draws=2, discrete_steps=8).ode.mean
    ),
}
"""In nats, of a model and data."""

QUICK = ("probed likelihood", "discrete bound", "encode")
"""What tests ask of a network; an exact model is asked all of it."""

STATES = {
    "encode": lambda model, x: encode(model, x, **SOLVER).latent,
    "decode": lambda model, x: decode(model, x, **SOLVER).values,
}
"""In model units: both see them of unit size at most places."""


def densities(setting: Setting) -> Iterator[Check]:
    """Likelihoods and bounds of data, in nats per dimension, and latents, in standard deviations.

    Solvers choose their own steps on each side: both are within their tolerance of one value.
    """
    for kind, target in {"exact": exact(), "trained": trained(setting.size)}.items():
        functions, size = {**PER_DIMENSION, **STATES}, target.data[0].numel()
        for name in setting.of(functions, functions, functions if kind == "exact" else QUICK):
            # The exact trace of a network takes a backward pass for each of its dimensions.
            costly = (name, kind) == ("exact likelihood", "trained")
            x, function = target.data[: setting.of(4, 1) if costly else setting.of(8, 2)], functions[name]

            def on(side: Side, target=target, function=function, x=x):
                return torch.as_tensor(function(side.place(target.model), side.send(x)))

            unit = size if name in PER_DIMENSION else 1.0
            yield Check(name, kind, gap(*on_both(setting, on), unit), SLACK * TOLERANCE)
