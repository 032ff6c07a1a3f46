"""Sampling to compare: samples of several samplers from the same noise, with what they cost."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor

from samplers import ODE, Samples, generate
from samplers.padding import cut
from samplers.progress import Progress
from samplers.protocol import is_flow_map, transform_of
from score_sde.comparison.candidates import Candidate
from score_sde.run.sampling import path_of
from sde import ScoreModel
from sde.data import Dataset

ROUNDS = 4
"""Parts of the samples. In each, every sampler draws in turn, so that a machine that slows down slows all of them."""

ODE_TOLERANCE = 1e-6
"""Tolerances of the solution that deterministic samplers are held against."""


@dataclass
class Drawn:
    """The samples of a candidate, a part of each round; or ``failure``, a sentence. ``ends`` are those of a flow map
    before quantized data are floored, chunk by chunk."""

    parts: list[Samples] = field(default_factory=list)
    ends: list[Tensor] = field(default_factory=list)
    failure: str = ""

    @property
    def x(self) -> Tensor:
        """(n, *event) in data units, on the CPU."""
        return torch.cat([part.x for part in self.parts])

    @property
    def latent(self) -> bool:
        """Whether its model's states are latents."""
        return any(part.state is not None for part in self.parts)

    @property
    def values(self) -> Tensor:
        """The same before quantized data are floored; of deterministic candidates alone. Of latents these."""
        if self.latent:
            return torch.cat([part.state for part in self.parts if part.state is not None])
        if self.ends:
            return cut(torch.cat(self.ends), self.sizes)
        return torch.cat([path_of(part).denoised[-1] for part in self.parts])

    @property
    def sizes(self) -> Tensor | None:
        """How much of each sample is real (n,), None where all is."""
        sizes = [part.sizes for part in self.parts if part.sizes is not None]
        return torch.cat(sizes) if sizes else None

    @property
    def nfe(self) -> Tensor:
        """Network calls counted for each sample (n,)."""
        return torch.cat([part.nfe for part in self.parts])

    @property
    def seconds(self) -> float:
        """A sample's, the median of the rounds."""
        return median(part.seconds / len(part.x) for part in self.parts)


def sample_all(
    model: Any,
    candidates: Sequence[Candidate],
    n: int,
    event_shape: Sequence[int],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    sizes: Tensor | None = None,
    values: bool = True,
    compile: bool = False,
    progress: bool = False,
) -> list[Drawn]:
    """n samples by each candidate of its model, or of ``model``, in rounds; sample i of all starts from the same noise,
    that of ``generate``.

    Conditions bound to the models, and ``sizes``, have n rows. With ``values`` those of deterministic candidates are
    kept. A first run, which reserves memory and compiles networks, is not timed. A candidate that becomes non-finite or
    needs too many calls fails alone.
    """
    drawn = [Drawn() for _ in candidates]
    ends = [n * number // ROUNDS for number in range(ROUNDS + 1)]
    rounds = [slice(start, stop) for start, stop in pairwise(ends) if stop > start]

    def draw(candidate: Candidate, rows: slice, ends: list[Tensor]) -> Samples:
        its, keeps = candidate.model or model, values and candidate.deterministic
        jumps = is_flow_map(its)

        def keep(step: int, s: Tensor, x: Tensor) -> None:
            # A flow map predicts no data on its way, and is there at the end of its last step.
            if step == len(candidate.times) - 2:
                ends.append(transform_of(its).decode(x).cpu())

        return generate(
            its.rows(rows), candidate.sampler, rows.stop - rows.start, tuple(event_shape), grid=candidate.times,
            seed=seed, first=rows.start, batch_size=batch_size, path=2 if keeps and not jumps else None,
            sizes=None if sizes is None else sizes[rows], compile=compile, callback=keep if keeps and jumps else None,
        )  # fmt: skip

    # Of each model once.
    for candidate in {candidate.entrant: candidate for candidate in reversed(candidates)}.values():
        with suppress(ArithmeticError):
            draw(candidate, rounds[-1], [])
    with Progress(total=len(rounds) * len(candidates), desc="comparing", unit="run", disable=not progress) as bar:
        for rows in rounds:
            for candidate, found in zip(candidates, drawn, strict=True):
                if not found.failure:
                    try:
                        found.parts.append(draw(candidate, rows, found.ends))
                    except ArithmeticError as error:
                        found.failure = f"{candidate.label}, is left out: {error}."
                bar.update()
    return drawn


def solved(
    model: ScoreModel,
    n: int,
    event_shape: Sequence[int],
    *,
    seed: int,
    batch_size: int | None,
    sizes: Tensor | None = None,
    compile: bool = False,
) -> Samples:
    """Where the probability-flow ODE leads from the same noise, by ``ode`` at ODE_TOLERANCE, with a closing denoising
    call like all samples; ``path.denoised[-1]`` (n, *event) in data units, before quantized data are floored."""
    solver = ODE(ODE_TOLERANCE, ODE_TOLERANCE)
    options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "sizes": sizes, "compile": compile}
    return generate(model, solver, n, tuple(event_shape), path=2, **options)


def end_of(flow: Samples) -> Tensor:
    """The end of a flow of ``solved`` (n, *event) in data units, before quantized data are floored; of latents (n,
    *inner) in model units."""
    return path_of(flow).denoised[-1] if flow.state is None else flow.state


def flow_error(values: Tensor, exact: Tensor, data: Dataset, latent: bool = False) -> float:
    """Root mean square of values - exact (n, *event), in data units and not floored, in standard deviations of the
    data; of ``latent`` ones (n, *inner), in those of the exact ones."""
    if latent:
        return ((values - exact).double().square().mean().sqrt() / exact.double().std()).item()
    transform, statistics = data.transform.outer, data.statistics
    mean, var = transform.moments(statistics.mean, statistics.var, data.dequantized)
    std = (var.mean() + mean.var(correction=0)).sqrt().item()
    difference = transform.encode(values) - transform.encode(exact)
    return difference.double().square().mean().sqrt().item() / std
