"""A network that predicts noise, exactly or with an error of a known size."""

import torch
from torch import nn

from sde.process.coefficients import expand


class NoiseOfGaussian(nn.Module):
    """The noise of data N(0, std^2 I) in x_t, from inputs of unit variance, off by ``error``: by a sign in each
    entry."""

    def __init__(self, sde, error, std):
        super().__init__()
        self.sde, self.error, self.std = sde, error, std
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x, c_noise, cond=None):
        ratio = torch.exp(4 * c_noise.double())
        noise = x * expand((ratio / (ratio**2 + self.std**2).sqrt()).to(x.dtype), x)
        return noise + self.error * torch.where(x > 0, 1.0, -1.0)
