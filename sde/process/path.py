"""The path of a chain: its log-SNR between the steps, and when it has one."""

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from sde.device import send


class Path:
    """A smooth and falling l(y) through the log-SNRs ``levels`` (n,) of steps y = 0, 1, ... n - 1.

    A cubic spline in u = log(1 + y), whose slopes are limited so that it falls (Fritsch and Carlson 1980). Where the
    last level is -inf, the end is open, and u = log(1 + y) - log(n - 1 - y): from the step before l is
    2 log w + bend (1 - w) of what is left, w from 1 to 0, so that alpha / sigma falls to zero linearly.
    """

    def __init__(self, levels: np.ndarray) -> None:
        self.opens, self.last = bool(np.isneginf(levels[-1])), len(levels) - 1
        levels = levels[np.isfinite(levels)]
        k = torch.arange(len(levels) - 1, dtype=torch.float64, device="cpu")
        width, gap = self._climb(torch.ones_like(k), k).numpy(), np.diff(levels)
        u, rises = np.concatenate([[0.0], np.cumsum(width)]), gap / width
        # All of them are negative. Within these limits the cubic falls everywhere.
        flatter = np.maximum(np.concatenate([rises[:1], rises]), np.concatenate([rises, rises[-1:]]))
        slopes = np.clip(CubicSpline(u, levels)(u, 1), 2 * flatter, 0.25 * flatter)
        cubics = np.stack([levels[:-1], gap, width * slopes[:-1], width * slopes[1:]])
        # Of each interval: l at its left end, the gap to the right, and the slopes at both.
        self.cubics, self.level = torch.from_numpy(cubics), float(levels[-1])
        rate = 1 / len(levels) + (1 / (self.last + 1 - len(levels)) if self.opens else 0)
        self.bend = 2 + float(slopes[-1]) * rate

    def _climb(self, part: Tensor, k: Tensor) -> Tensor:
        """u at k + part less that at k."""
        climb = torch.log1p(part / (k + 1))
        return climb - torch.log1p(-part / (self.last - k)) if self.opens else climb

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """l and dl / dt at t = y / (n - 1)."""
        cubics, y = send(self.cubics.to(t.dtype), t.device), t * self.last
        count = cubics.shape[1]
        inside = y.clamp(max=count) if self.opens else y
        k = y.detach().floor().clamp(0, count - 1).long()
        whole = k.to(t.dtype)
        width = self._climb(torch.ones_like(y), whole)
        value, slope = _cubic(self._climb(inside - whole, whole) / width, *cubics[:, k])
        rate = 1 / (1 + inside) + (1 / (self.last - inside) if self.opens else 0)
        slope = slope * self.last / width * rate
        if not self.opens:
            return value, slope
        left = ((1 - t) * self.last).clamp(max=1)
        beyond = self.level + 2 * left.log() + self.bend * (1 - left)
        return torch.where(y > count, beyond, value), torch.where(y > count, (self.bend - 2 / left) * self.last, slope)

    def time(self, level: Tensor) -> Tensor:
        """t of values of l, in float64."""
        target, cubics = level.double(), send(self.cubics, level.device)
        k = (torch.searchsorted(-cubics[0], -target.contiguous(), right=True) - 1).clamp(min=0)
        whole = k.double()
        climb = self._climb(torch.ones_like(whole), whole) * _part_of(target, *cubics[:, k])
        if not self.opens:
            return (whole + (whole + 1) * torch.expm1(climb)) / self.last
        # exp(climb) = (1 + part / (k + 1)) / (1 - part / (n - 1 - k)).
        y = whole + torch.expm1(climb) / (1 / (whole + 1) + climb.exp() / (self.last - whole))
        return torch.where(target < self.level, 1 - self._left(target) / self.last, y / self.last)

    def _left(self, target: Tensor) -> Tensor:
        """w, by Newton's method for log w, of which l is convex or concave."""
        log_left = (0.5 * (target - self.level)).clamp(max=0)
        for _ in range(50):
            left = log_left.exp()
            excess = 2 * log_left + self.bend * (1 - left) - (target - self.level)
            log_left = (log_left - excess / (2 - self.bend * left)).clamp(max=0)
        return log_left.exp()


def _cubic(part: Tensor, left: Tensor, gap: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """The cubic from left to left + gap, at part from 0 to 1, with these slopes at both; and its derivative."""
    bend, twist = 3 * gap - 2 * first - last, first + last - 2 * gap
    return left + part * (first + part * (bend + part * twist)), first + part * (2 * bend + 3 * part * twist)


def _part_of(target: Tensor, left: Tensor, gap: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Where a falling cubic has a value: Newton's method, and the middle where it leaves what is known."""
    low, high = torch.zeros_like(target), torch.ones_like(target)
    part = ((target - left) / gap).clamp(0, 1)
    for _ in range(40):
        value, slope = _cubic(part, left, gap, first, last)
        low, high = torch.where(value > target, part, low), torch.where(value > target, high, part)
        newton = part - (value - target) / slope
        part = torch.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
    return part
