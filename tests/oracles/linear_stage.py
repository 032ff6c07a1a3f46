"""Exact stages of a cascade: the posterior mean of a Gaussian x0 given x_t and a noised low resolution."""

import torch
from torch import nn

from sde.model.parametrization import PARAMETRIZATIONS


class LinearStage(nn.Module):
    """F of a denoiser of the "edm" parametrization, on a process with alpha = 1, whose D is E[x0 | x_t, y] of signals
    (1, d) in data units, x0 ~ N(mean, cov) and y = B x0 + scale level n with block means B over two.

    ``told`` sets what is exact of a run: of the law in data units, and of the units of the model."""

    def __init__(self, event_shape, num_classes=None, conditions=None):
        super().__init__()
        self.num_classes, self.conditions = None, {k: tuple(v) for k, v in (conditions or {}).items()}
        d = event_shape[-1]
        self.unused = nn.Parameter(torch.zeros(1))
        for name, shape in {"mean": (d,), "cov": (d, d), "units": (2,), "sigma_data": (), "image": (2,),
                            "level": (2,)}.items():  # fmt: skip
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    def told(self, mean, cov, model):
        outer, about = model.transform, model.standardization
        self.mean.copy_(mean)
        self.cov.copy_(cov)
        self.units.copy_(torch.tensor([outer.shift[0], outer.scale[0]], dtype=torch.float64))
        self.sigma_data.fill_(model.sigma_data)
        if self.conditions:
            self.image.copy_(torch.stack([about.image_shift[0], about.image_scale[0]]))
            self.level.copy_(torch.stack([about.condition_noise_shift[0], about.condition_noise_scale[0]]))

    def given(self, cond, count):
        """Mean (B, d) and covariance (B, d, d) of x0 given the image alone, at the level that is told."""
        mean, cov = self.mean.expand(count, -1), self.cov.expand(count, -1, -1)
        if not self.conditions:
            return mean, cov
        shift, scale = self.image
        y = shift + scale * cond["image"].double().flatten(1)
        level = self.level[0] + self.level[1] * cond["condition_noise"].double().flatten()
        blocks = means_over_two(len(self.mean))
        noise = (scale * level).square()[:, None, None] * torch.eye(len(blocks), dtype=torch.float64)
        gain = torch.linalg.solve(blocks @ self.cov @ blocks.T + noise, (blocks @ self.cov).expand(count, -1, -1)).mT
        mean = mean + ((y - blocks @ self.mean)[:, None] @ gain.mT)[:, 0]
        return mean, cov - gain @ blocks @ self.cov

    def forward(self, x, c_noise, cond=None):
        level = (4 * c_noise.double()).exp()[:, None]
        c_skip, c_out, c_in = PARAMETRIZATIONS["edm"](torch.ones_like(level), level, self.sigma_data)
        seen = x.double().flatten(1) / c_in
        shift, scale = self.units
        mean, cov = self.given(cond, len(x))
        noise = (scale * level).square()[..., None] * torch.eye(len(self.mean), dtype=torch.float64)
        gain = torch.linalg.solve(cov + noise, cov).mT
        mean = mean + ((shift + scale * seen - mean)[:, None] @ gain.mT)[:, 0]
        return (((mean - shift) / scale - c_skip * seen) / c_out).to(x.dtype).view(x.shape)


def means_over_two(d):
    """B, (d / 2, d): the means over blocks of two."""
    return torch.eye(d // 2, dtype=torch.float64).repeat_interleave(2, 1) / 2
