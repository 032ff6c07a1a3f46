"""Training on pairs of noise and sample (reflow): on exact pairs of Gaussian data the optimum is straight."""

import pytest
import torch

from samplers import Euler, sample
from sde import SDES, ScoreModel, Transform
from sde.data.dataset import Dataset
from sde.data.pairs import paired
from sde.distributed.world import World
from sde.process.coefficients import expand
from sde.training.batches import Batches
from sde.training.loss import denoising_loss
from sde.training.options import TrainingOptions
from tests.oracles.exact import Gaussian

MEAN, STD = torch.tensor([0.7, -0.3], dtype=torch.float64), 0.4
FLOW = SDES["flow"]()


class Straightened(ScoreModel):
    """D after reflow on the pairs (z, MEAN + STD z) of the exact flow: x_t = alpha (MEAN + STD z) + sigma z tells z."""

    sigma_data = 0.5

    def forward(self, x, t, cond=None):
        alpha, sigma = (expand(c.to(x), x) for c in (self.sde.alpha(t), self.sde.sigma(t)))
        return MEAN.to(x) + STD * (x - alpha * MEAN.to(x)) / (alpha * STD + sigma)


def pairs(count=64):
    """Pairs of the exact flow, as a data set."""
    z = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    ends = (torch.tensor(end, dtype=torch.float64) for end in (FLOW.t_max, 0.0))
    x = Gaussian(FLOW, MEAN, STD).flow(z.double(), *ends)
    torch.testing.assert_close(x, MEAN + STD * z.double())
    return paired(Dataset(torch.zeros(5, 2), None, None, Transform()), x.float(), z), z


def batches(data, sde=FLOW):
    options = TrainingOptions(steps=4, batch_size=16, time_distribution="uniform")
    return Batches(data, sde, options, World(), torch.device("cpu"))


def test_the_optimum_on_exact_pairs():
    """The loss of what training feeds is 0 there, on items of which each has its own noise; with noise drawn anew, as
    without pairs, it is not."""
    data, z = pairs()
    model, fed = Straightened(FLOW), batches(data)
    for number in range(4):
        x0, cond, draws = fed.get(number)
        torch.testing.assert_close(x0, MEAN.float() + STD * draws.z, rtol=0, atol=1e-6)
        assert denoising_loss(model, x0, cond, draws, weighting="score").max() < 1e-8
    assert {tuple(row) for row in draws.z.tolist()} <= {tuple(row) for row in z.tolist()}
    anew = batches(Dataset(data.items, None, None, Transform())).get(0)
    assert denoising_loss(model, *anew, weighting="score").mean() > 0.1


@pytest.mark.parametrize("name", ["flow", "gvp", "vp", "ve"])
def test_the_gradient_vanishes_there_alone(name):
    """Of D + a + b x about the optimum, on every process: the coupling is no matter of the path."""
    sde = SDES[name]()
    data, _ = pairs()
    x0, cond, draws = batches(data, sde).get(0)

    def gradients(a, b):
        a, b = (torch.tensor(value, requires_grad=True) for value in (a, b))
        model = Straightened(sde)
        D = model.forward
        model.forward = lambda x, t, cond=None: D(x, t) + a + b * x / expand(sde.alpha(t) + sde.sigma(t), x)
        denoising_loss(model, x0, cond, draws, weighting="min_snr").mean().backward()
        return a.grad.abs() + b.grad.abs()

    assert gradients(0.0, 0.0) < 1e-4 < 1e-2 < gradients(0.1, 0.0)
    assert gradients(0.0, 0.1) > 1e-2


@pytest.mark.parametrize(("t", "s"), [(1.0, 1e-3), (1.0, 0.5), (0.8, 0.1)])
def test_one_euler_step_is_exact_after_reflow(t, s):
    """The paths of the new flow are straight: a single step from any time to any other, and the ends are the old
    flow's; before, one step from t = 1 ends at the mean."""
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alpha, sigma = 1 - torch.tensor([t, s], dtype=torch.float64), torch.tensor([t, s], dtype=torch.float64)
    start, end = (a * (MEAN + STD * z) + b * z for a, b in zip(alpha, sigma, strict=True))
    found = sample(Straightened(FLOW), Euler(), start, sigma, denoise=False)
    torch.testing.assert_close(found, end)
    before = sample(Gaussian(FLOW, MEAN, STD), Euler(), start, sigma, denoise=False)
    assert (before - end).abs().max() > 0.05


def test_quantized_items_stay_where_they_are_in_their_cells():
    """What is fed is what the noise leads to, not a draw in its cell; and sizes, labels and conditions go with it."""
    x, noise = torch.tensor([[[3.25]], [[7.875]]]), torch.tensor([[[0.5]], [[-1.0]]])
    like = Dataset(torch.tensor([[[3]], [[7]]]), torch.tensor([0, 2]), 3, Transform.of_levels(8))
    data = paired(like, x, noise, {"labels": torch.tensor([1, -1]), "vector": torch.tensor([[1.0], [2.0]])})
    assert data.num_classes == 3
    options = TrainingOptions(steps=1, batch_size=2)
    x0, cond, draws = Batches(data, FLOW, options, World(), torch.device("cpu")).get(0)
    order = draws.z.flatten().argsort(descending=True)
    torch.testing.assert_close(x0[order].flatten(), torch.tensor([3.25 / 4 - 1, 7.875 / 4 - 1]))
    assert cond["labels"][order].tolist() == [1, -1]
    assert cond["vector"][order].flatten().tolist() == [1.0, 2.0]


def test_pairs_of_another_shape():
    like = Dataset(torch.zeros(5, 2), None, None, Transform())
    with pytest.raises(ValueError, match=r"the pairs have items of shape \(3,\), the data \(2,\)"):
        paired(like, torch.zeros(4, 3), torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"the noise has shape \(3, 2\): needs \(4, 2\), one row per item"):
        paired(like, torch.zeros(4, 2), torch.zeros(3, 2))
