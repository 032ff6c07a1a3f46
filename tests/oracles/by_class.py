"""A mixture whose classes are its components: exact answers for everything that is conditioned or guided."""

import pytest
import torch

from sde import PARAMETRIZATIONS, Denoiser, ScoreModel
from sde.condition.tree import as_tree
from sde.process.coefficients import expand
from tests.oracles.exact import Gaussian, GaussianMixture

MEANS = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.0, -1.2]], dtype=torch.float64)
STD = 0.4


class ByClass(ScoreModel):
    """The exact denoiser of the mixture, given the component or (null, None) not."""

    num_classes, null_trained = 3, True

    def __init__(self, sde):
        super().__init__(sde)
        self.register_buffer("means", MEANS)
        # In a plain list: to those who count calls, this is one network.
        self.components = [Gaussian(sde, mean, STD) for mean in MEANS]
        self.whole = [GaussianMixture(sde, MEANS, STD)]

    @property
    def mixture(self):
        return self.whole[0]

    def score_of(self, labels, x, t):
        """The exact score of each row's own class."""
        return torch.stack([self.components[y].score(x[[i]], t[[i]])[0] for i, y in enumerate(labels.tolist())])

    def forward(self, x, t, cond=None):
        everything = self.mixture.forward(x, t)
        if cond is None:
            return everything
        single = torch.stack([component.forward(x, t) for component in self.components])
        rows, labels = torch.arange(len(x)), as_tree(cond)["labels"]
        return torch.where((labels >= 0)[:, None], single[labels.clamp(min=0), rows], everything)


class Bayes:
    """Exact logits of p(y | x_t)."""

    num_classes = 3

    def __init__(self, sde):
        self.sde, self.mixture = sde, GaussianMixture(sde, MEANS, STD)

    def __call__(self, x, t):
        return self.mixture.component_logits(x, t)


class Network(torch.nn.Module):
    """A network told c_in x and c_noise alone, whose output is ``function`` of the x and t that these stand for."""

    num_classes = 3

    def __init__(self, sde, function, sigma_data):
        super().__init__()
        self.sde, self.function, self.sigma_data = [sde], function, sigma_data

    def forward(self, inputs, c_noise, *cond):
        (sde,) = self.sde
        t = sde.t_of_log_snr(-8 * c_noise)
        c_in = (sde.sigma(t) ** 2 + (sde.alpha(t) * self.sigma_data) ** 2).rsqrt()
        return self.function(inputs / expand(c_in, inputs), t, *cond)


def seen_as(parametrization, exact, sigma_data=0.7):
    """The denoiser of a network that is exact in a parametrization."""
    sde, formulas = exact.sde, PARAMETRIZATIONS[parametrization]

    def output(x, t, cond):
        c_skip, c_out, _ = formulas(sde.alpha(t), sde.sigma(t), sigma_data)
        return (exact(x, t, cond) - expand(c_skip, x) * x) / expand(c_out, x)

    return Denoiser(Network(sde, output, sigma_data), sde, parametrization, sigma_data)


@pytest.fixture
def batch(process, generator):
    t = torch.rand(6, generator=generator, dtype=torch.float64) * (process.t_max - process.t_min) + process.t_min
    x0 = GaussianMixture(process, MEANS, STD).draw(6, generator)
    return process.perturb(x0, t, torch.randn(x0.shape, generator=generator, dtype=torch.float64)), t


LABELS = torch.tensor([0, 1, 2, 2, 1, 0])
