"""Guidance: samples with every one, and with every posterior method."""

from collections.abc import Iterator

from benchmarks.right.samplers import ROUNDING
from benchmarks.sections import Check, Setting
from benchmarks.sides import Side, exact, gap, on_both, trained
from samplers import SAMPLERS, generate
from tests.oracles.guidances import GUIDED, POSTERIORS


def guidance(setting: Setting) -> Iterator[Check]:
    """Samples with every guidance and posterior method, in chunks, in standard deviations of the data.

    Posterior methods on the exact model, all on the trained one. A chunk that does not divide the samples is filled up.
    """
    count, steps = 4, setting.of(12, 6, 4)
    for kind, target, methods in (("exact", exact(), POSTERIORS), ("trained", trained(setting.size), GUIDED)):
        for name, bind in methods.items():

            def on(side: Side, target=target, bind=bind):
                model = side.place(target.model)
                model.event_shape = target.event_shape
                bound = bind(model, side.send(target.labels[:count]))
                sampler = SAMPLERS["dpmpp"]()
                return generate(bound, sampler, count, target.event_shape, seed=3, steps=steps, batch_size=3).x

            yield Check(name, kind, gap(*on_both(setting, on), target.std), ROUNDING)
