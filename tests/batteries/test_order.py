"""Order of convergence of every sampler on every process, against exact Gaussian answers in float64.

A deterministic sampler is compared with the exact flow. A stochastic one is, on a Gaussian model, an affine map of the
starting point and of the noises it draws: zero noise gives the mean, unit impulses the variance, without sampling.
"""

import pytest
import torch

from samplers import (
    GRIDS,
    sample,
)
from tests.batteries.tiers import two_tiers
from tests.batteries.variants import ORDERED
from tests.oracles.affine import MEAN, STD, draws, gaussian, moments, slope

STEPS = {1: (64, 128), 2: (64, 128), 3: (64, 128), 4: (128, 256)}
"""Of a claimed order: from where its errors are those of the last power alone."""
MEASURED = {1: 0.85, 2: 1.8, 3: 2.7, 4: 3.5}
"""What a claimed order must measure at least."""


def grid(process, steps):
    """Uniform in the log-SNR but for the first step, which begins with ever smaller ones: a multistep method starts at
    order 1, whose error would otherwise be seen beyond its own."""
    log_snr = process.log_snr(GRIDS["log_snr"](process, steps, process.t_signal))
    first = log_snr[0] + log_snr.diff()[0] * 0.5 ** torch.arange(8, 0, -1)
    # An open noise end has no log-SNR: it comes before, and the step from there is everybody's.
    end = torch.full((int(process.open_end),), process.t_max, dtype=torch.float64)
    return torch.cat([end, process.t_of_log_snr(torch.cat([log_snr[:1], first, log_snr[1:]]))])


@pytest.mark.parametrize(("name", "process"), two_tiers(ORDERED), indirect=["process"])
def test_order(name, process):
    sampler, model = ORDERED[name], gaussian(process)
    grids = [grid(process, n) for n in STEPS[sampler.order]]
    errors = []
    for times in grids:
        if draws(sampler, grids[0][-2:], process):
            end = times[-1]
            mean, variance = moments(model, sampler, times)
            exact = (process.alpha(end) * STD) ** 2 + process.sigma(end) ** 2
            errors.append(abs(mean - process.alpha(end).item() * MEAN) + abs(variance - exact.item()))
        else:
            x = torch.tensor([[-1.3], [0.4], [2.0]], dtype=torch.float64) * process.prior_std()
            out = sample(model, sampler, x, times, denoise=False)
            if process.open_end:
                # From there, past the step that is everybody's and neglects alpha^2 / sigma^2.
                x, times = process.sigma(times[1]) * x + process.alpha(times[1]) * MEAN, times[1:]
            errors.append((out - model.flow(x, times[0], times[-1])).abs().max().item())
    assert slope(errors) > MEASURED[sampler.order], errors
