"""Samples: those of every sampler, and of plans."""

from collections.abc import Iterator

import torch

from benchmarks.measure import ADAPTIVE
from benchmarks.sections import Check, Setting
from benchmarks.sides import Side, Target, exact, gap, on_both, sides, trained
from samplers import ODE, SAMPLERS, SCORE_SAMPLERS, SeededNoise, generate, plan, sample
from samplers.grid import make_grid
from sde import SDES
from sde.guidance import ClassifierFree
from tests.batteries.variants import VARIANTS

ROUNDING = 1e-4
"""Allowed in float32 of samples of equal steps, in units of the data's standard deviation."""

TOLERANCES = {"ode": 1e-3, "reverse_sde": 1e-2}
"""Of the adaptive samplers; their samples may differ by ``SLACK`` times it."""

SLACK = 10.0


def drawn(target: Target, sampler, setting: Setting, guided: bool = False, **options) -> float:
    """The largest difference of samples of equal seeds on both sides, in standard deviations of the data."""
    count = setting.of(4, 4, 2)

    def on(side: Side):
        model = side.place(target.model)
        if guided:
            model = ClassifierFree(model, side.send(target.labels[:count]), 1.5)
        return generate(model, sampler, count, target.event_shape, seed=1, **options).x

    return gap(*on_both(setting, on), target.std)


def samplers(setting: Setting) -> Iterator[Check]:
    """Samples of every sampler from equal seeds, in standard deviations of the data.

    Every registered sampler on an exact model of every process, and with guidance on a trained one; variants by options
    on the exact model of one process.
    """
    # With few steps, coefficients of high order make much of roundings.
    steps = setting.of(30, 30, 6)
    for name, factory in ((name, SAMPLERS[name]) for name in SCORE_SAMPLERS):
        adaptive, tolerance = name in ADAPTIVE, setting.of(1, 1, 10) * TOLERANCES.get(name, 1e-3)
        sampler = factory(**dict.fromkeys(factory.tolerances, tolerance)) if adaptive else factory()
        allowed, options = (SLACK * tolerance, {}) if adaptive else (ROUNDING, {"steps": steps})
        for sde in setting.of([*SDES], [*SDES], ["vp"]):
            if sde == "vp" or not adaptive:
                yield Check(name, f"exact, {sde}", drawn(exact(sde), sampler, setting, **options), allowed)
        target = trained(setting.size)
        # An adaptive reverse SDE draws a path for each pixel: what it does with a network, it has done by then.
        if name != "reverse_sde":
            yield Check(name, "trained, guided", drawn(target, sampler, setting, guided=True, **options), allowed)
    for name, sampler in setting.of(VARIANTS, VARIANTS, {}).items():
        if name not in SAMPLERS:
            error = drawn(exact(), sampler, setting, steps=steps)
            yield Check(name.partition("-")[0], f"{name}, exact, vp", error, ROUNDING)


def plans(setting: Setting) -> Iterator[Check]:
    """The error of samples of a plan made there, over that of one made on the other side, less one.

    Errors are median distances to where the probability-flow ODE leads, solved in float64 on the CPU.
    """
    calls, count = 6, 32
    for name in setting.of(("exact", "trained"), ("exact", "trained"), ("exact",)):
        target = exact() if name == "exact" else trained(setting.size)
        cpu64 = Side(torch.device("cpu"), torch.float64)
        noise = SeededNoise(range(count))(torch.empty(count, *target.event_shape)) * target.model.sde.prior_std()
        model = cpu64.place(target.model)
        end = sample(model, ODE(rtol=1e-5, atol=1e-5), cpu64.send(noise), make_grid(model.sde, "log_snr", 1),
                     denoise=False)  # fmt: skip

        def error(side: Side, target=target, noise=noise, end=end) -> float:
            model = side.place(target.model)
            found = plan(model, target.event_shape, calls)
            x = sample(model, found.sampler, side.send(noise), found.times, denoise=False)
            return (x.cpu().double() - end).flatten(1).norm(dim=1).median().item()

        measured, held_to = on_both(setting, error)
        yield Check("plan", f"{name}, {calls} calls", measured / held_to - 1, 0.1)


def precision(setting: Setting) -> Iterator[Check]:
    """bfloat16 autocast against float32, both there: samples in standard deviations of the data, losses relative.

    A difference of nothing is an error as well: then nothing was cast.
    """
    from benchmarks.right.training import losses_of

    side, target = sides(setting)[0], trained(setting.size)
    found = {}
    for dtype in (None, torch.bfloat16):
        model = side.place(target.model)
        model.autocast = dtype
        guided = ClassifierFree(model, side.send(target.labels[:8]), 1.5)
        x = generate(guided, SAMPLERS["dpmpp"](), 8, target.event_shape, seed=1, steps=8).x
        found[dtype] = x, losses_of(model, target).mean()
    (x, loss), (cast_x, cast_loss) = found.values()
    spread = (cast_x - x).square().mean().sqrt().item() / target.std
    yield Check("samples", "root mean square difference", spread, 0.05)
    yield Check("losses", "mean of a batch", abs(cast_loss / loss - 1).item(), 0.02)
    yield Check("samples", "1 where nothing was cast", float(spread < 1e-6), 0.0)
