"""An adaptive solver of the reverse-time SDE."""

import hashlib
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torchsde
from torch import Tensor

from samplers.calls import part
from samplers.checks import NonFiniteError, SampleError
from samplers.host import double
from samplers.numerics.diffusion import PROCESS, as_diffusion, relative_diffusion
from samplers.numerics.exponential import norm
from samplers.numerics.runge_kutta import check_tolerances
from samplers.padding import Padded, real
from samplers.step import Noise, Result

FIRST_STEP, MIN_STEP = 0.3, 1e-9
"""Step sizes in units of log(alpha / sigma), in which every SDE has steps of about the same size."""

PATH_RESOLUTION = 1e-5
"""Resolution of the Brownian path, in the same units."""

TABLE_ENTRIES = 2049
"""Entries of the table of times; between them t is linear, which is right to about 1e-6 of a unit."""

Table = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ReverseSDE:
    """Adaptive solution of the reverse SDE (Song et al. 2021, eq. 6) by torchsde's Runge-Kutta method SRA1 for additive
    noise (Roessler 2010), strong order 1.5, with step doubling; local errors below atol + rtol |v| in v's units.

    It is solved in u = log(alpha / sigma) for v = x / sqrt(alpha^2 + sigma^2), in which no SDE is different from
    another: dv = (c^2 v - 2 c n) du + sqrt(2) c dw, c = sigma / sqrt(alpha^2 + sigma^2), n(v, u) the predicted noise.
    ``diffusion`` is that of EulerMaruyama: "process", as above, or another w, with which dv = (c^2 v - (1 + k) c n) du
    + sqrt(2 k) c dw, k = w / g^2, at most 10: near the data, where the score is steep, more of it would take ever
    smaller steps.

    Every sample is solved alone, on a Brownian path of its own whose seed is a digest of its row of the noise, so that
    it depends neither on its batch-mates nor on their number; the price is one network call per sample and stage. The
    solver works on the CPU, wherever the model is: its hundred operations a stage are small, and it looks at results.
    """

    rtol: float = 1e-2
    atol: float = 1e-2
    max_nfe: int = 10_000
    diffusion: str | float = PROCESS
    order: ClassVar[float] = 0
    adaptive: ClassVar[bool] = True
    tolerances: ClassVar[tuple[str, ...]] = ("rtol", "atol")
    steps: ClassVar[int] = 1
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        check_tolerances(self.rtol, self.atol, self.max_nfe)
        object.__setattr__(self, "diffusion", as_diffusion(self.diffusion))

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise: Noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; network calls as needed.

        Raises FloatingPointError where a sample becomes non-finite, ArithmeticError beyond ``max_nfe`` calls.
        """
        levels = model.sde.level(t), model.sde.level(s)
        ends = 0.5 * double([at.log_snr for at in levels])
        # One inverse for all stages of all samples: by bisection, it can cost as much as a small network.
        clock = torch.linspace(ends[0], ends[1], TABLE_ENTRIES, dtype=torch.float64, device="cpu")
        times = model.sde.t_of_log_snr(2 * clock)
        table = clock.numpy(), times.numpy()
        before, after = map(norm, levels)
        solved = []
        for i, (state, seeding) in enumerate(zip(x.cpu(), noise(x).cpu(), strict=True)):
            with part(model, torch.tensor([i], device="cpu"), len(x)) as row:
                # Of a padded sample what is real alone.
                everywhere = torch.ones_like(state, dtype=torch.bool)
                kept = real(row.sizes, state.shape)[0] if isinstance(row, Padded) else everywhere
                start = (state / before)[kept][:, None]
                path = _Path(ends, _digest(seeding[kept]), start)
                system = _System(row, x.device, kept, table, i, self.max_nfe, self.diffusion)
                end = torchsde.sdeint(
                    system, start, ends, bm=path, method="srk", adaptive=True, rtol=self.rtol, atol=self.atol,
                    dt=FIRST_STEP, dt_min=MIN_STEP,
                )[-1]  # fmt: skip
            solved.append(after * system.event(end))
        return torch.stack(solved).to(x.device), carry


class _Path:
    """A sample's Brownian path in u, fixed by its seed: drawn on the CPU in float64, whatever x's device and dtype.

    The tree of halves makes it independent of which times are asked for, so that smaller tolerances approach the same
    sample; without it each choice of steps would have a path of its own.
    """

    levy_area_approximation = "space-time"

    def __init__(self, ends: Tensor, seed: int, like: Tensor) -> None:
        self.like, self.shape = like, like.shape
        # Whole numbers as ends, which rounding to the resolution leaves alone.
        self.interval = torchsde.BrownianInterval(
            math.floor(ends[0]), math.ceil(ends[1]), size=like.shape, dtype=torch.float64, device="cpu", entropy=seed,
            levy_area_approximation=self.levy_area_approximation, halfway_tree=True, tol=PATH_RESOLUTION,
        )  # fmt: skip

    def __call__(self, start: Tensor, end: Tensor, return_U: bool = False) -> tuple[Tensor, Tensor]:
        """W(end) - W(start) and the integral of W - W(start), which SRA1 asks for."""
        increment, integral = self.interval(start, end, return_U=True)
        return increment.to(self.like), integral.to(self.like)


def _digest(row: Tensor) -> int:
    """An integer from the bits of a row of normal draws."""
    return int.from_bytes(hashlib.blake2b(row.double().numpy().tobytes(), digest_size=8).digest())


class _System:
    """Drift and diffusion of v in u, as torchsde asks for them: u 0-d, v (d, 1) of the entries
    that are ``kept`` (*event), on the CPU; the model is called on ``device``.

    The d entries of a sample are torchsde's batch: the diffusion is then (d, 1, 1), where one row of d entries would
    need a matrix (d, d).
    """

    noise_type = "additive"
    sde_type = "ito"

    def __init__(
        self,
        model,
        device: torch.device,
        kept: Tensor,
        table: Table,
        sample: int,
        max_nfe: int,
        diffusion: str | float = PROCESS,
    ) -> None:
        self.model, self.device, self.kept, self.table = model, device, kept, table
        self.sample, self.max_nfe, self.diffusion = sample, max_nfe, diffusion
        self.nfe = 0
        self.known: list[tuple[Tensor, float, Tensor]] = []

    def event(self, v: Tensor) -> Tensor:
        """v (d, 1) in its places in the event, (*event), 0 elsewhere."""
        return v.new_zeros(self.kept.shape).masked_scatter(self.kept, v)

    def f(self, u: Tensor, v: Tensor) -> Tensor:
        # A method asks for the same stage twice, and step doubling for the first stage twice more.
        for state, at, drift in self.known:
            if state is v and at == u.item():
                return drift
        self.nfe += 1
        if self.nfe > self.max_nfe:
            raise SampleError(
                [self.sample],
                f"took {self.max_nfe} calls and is at log(alpha / sigma) = {u.item():.4g}: loosen rtol and atol, or "
                f"raise max_nfe = {self.max_nfe}",
            )
        t = self.time(u)
        c = _noise_part(u)
        at = self.model.sde.level(t)
        x = (norm(at) * self.event(v)[None]).to(self.device)
        share = 1 + relative_diffusion(self.diffusion, self.model.sde, t)
        drift = c**2 * v - share * c * self.model.noise(x, t)[0].cpu()[self.kept][:, None]
        if not drift.isfinite().all():
            raise NonFiniteError(
                [self.sample],
                f"became non-finite at t = {t:.6g} (sigma = {at.sigma:.4g}): the model's output is not finite",
            )
        self.known = [*self.known[-3:], (v, u.item(), drift)]
        return drift

    def g(self, u: Tensor, v: Tensor) -> Tensor:
        share = relative_diffusion(self.diffusion, self.model.sde, self.time(u))
        return ((2 * share) ** 0.5 * _noise_part(u)).to(v).expand(len(v), 1, 1)

    def time(self, u: Tensor) -> Tensor:
        """t of u, both 0-d."""
        return double(np.interp(u.item(), *self.table))


def _noise_part(u: Tensor) -> Tensor:
    """sigma / sqrt(alpha^2 + sigma^2)."""
    return torch.sigmoid(-2 * u).sqrt()
