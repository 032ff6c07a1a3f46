"""Uncertainty weighting: what it converges to, what it does to gradients, and how it is trained and kept."""

import pytest
import torch

from sde import VESDE, VPSDE
from sde.checkpoint.states import Checkpoints
from sde.distributed.world import World
from sde.training.fit import fit
from sde.training.loss import BatchNoise, denoising_loss
from sde.training.uncertainty import UncertaintyWeighting
from tests.oracles.exact import GaussianDenoiser
from tests.sde.small_training import same, trainer


def exact_losses(level):
    """Losses "score" of the exact model of normal data at noise levels, and their expectation s^2 / (s^2 + level^2)."""
    sde, std = VESDE(sigma_min=0.01, sigma_max=20.0), 0.5
    model = GaussianDenoiser(sde, torch.zeros(8, dtype=torch.float64), std)
    model.sigma_data = std
    generator = torch.Generator().manual_seed(3)
    draws = BatchNoise.draw(sde, (len(level), 8), generator)
    t = sde.t_of_noise_level(level)
    x0 = std * torch.randn(len(level), 8, dtype=torch.float64, generator=generator)
    losses = denoising_loss(model, x0, None, draws._replace(t=t), weighting="score")
    return sde, t, losses.detach().float(), std**2 / (std**2 + level**2)


def test_it_converges_to_the_expected_loss_of_every_level():
    """On the exact model of normal data, whose loss of each noise level is known, from 1 down to 1 / 1000."""
    levels = torch.logspace(-1.7, 1.2, 512, dtype=torch.float64)
    sde, t, losses, expected = exact_losses(levels.repeat_interleave(8))
    expected = expected[::8]
    uncertainty = UncertaintyWeighting(sde)
    optimizer = torch.optim.Adam(uncertainty.parameters(), lr=0.05)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 800)
    for _ in range(800):
        optimizer.zero_grad()
        uncertainty(losses, t).mean().backward()
        optimizer.step()
        decay.step()
    learned = uncertainty.log_variance(t[::8]).exp()
    assert (learned / expected - 1).abs().max() < 0.12
    assert (learned / expected - 1).abs().mean() < 0.03


def test_the_objective_and_its_gradients():
    """L / exp(u) + u: by L it is exp(-u), by u it is 1 - L / exp(u), zero at exp(u) = L."""
    uncertainty = UncertaintyWeighting(VPSDE())
    t = torch.tensor([0.01, 0.3, 0.9], dtype=torch.float64)
    losses = torch.tensor([3.0, 0.2, 1.5], requires_grad=True)
    assert torch.equal(uncertainty(losses, t), losses), "as they are, at first"
    with torch.no_grad():
        uncertainty.weight.copy_(torch.randn(128, generator=torch.Generator().manual_seed(1)))
    u = uncertainty.log_variance(t)
    assert u.abs().min() > 0.1
    objective = uncertainty(losses, t)
    torch.testing.assert_close(objective, losses / u.exp() + u)
    by_loss, by_weight = torch.autograd.grad(objective.sum(), [losses, uncertainty.weight])
    torch.testing.assert_close(by_loss, 1 / u.exp())
    slopes = torch.autograd.functional.jacobian(lambda w: torch.func.functional_call(
        uncertainty, {"weight": w}, (torch.zeros(3), t)), uncertainty.weight.detach())  # fmt: skip
    torch.testing.assert_close(by_weight, (1 - losses / u.exp()).detach() @ slopes)


def test_it_knows_the_noise_level_alone():
    """Two processes that are at the same sigma / alpha."""
    level = torch.tensor([0.05, 0.7, 9.0], dtype=torch.float64)
    found = []
    for sde in (VPSDE(), VESDE()):
        uncertainty = UncertaintyWeighting(sde)
        torch.nn.init.ones_(uncertainty.weight)
        found.append(uncertainty.log_variance(sde.t_of_noise_level(level)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)
    assert found[0].std() > 0.1


@pytest.mark.parametrize("options", [{"optimizer": "adamw", "weight_decay": 0.1}, {"gradient_accumulation": 4}])
def test_continuing_equals_never_stopping(tmp_path, options):
    straight, first, second = (trainer(uncertain=True, lr=0.01, **options) for _ in range(3))
    fit(straight, [])
    assert straight.uncertainty.weight.abs().max() > 0.05
    with torch.random.fork_rng():
        for _ in range(10):
            first.training_step()
    states = Checkpoints(tmp_path, "denoiser")
    states.save(first.state_dict())
    second.load_state_dict(states.load(second.state_template)[0])
    fit(second, [])
    assert same(straight.state_dict(), second.state_dict())


def test_it_is_no_part_of_the_model():
    run = trainer(1, uncertain=True)
    assert run.module.state_dict().keys() == trainer(1).module.state_dict().keys()
    assert run.ema.state_dict()["average"].keys() == run.parameters.keys()
    assert [name for name in run.trained if name not in run.parameters] == ["uncertainty.weight"]


def test_what_is_logged_is_the_loss_before_it():
    """And what is minimized beside it; the first step is that of a run without, as u is 0."""
    plain, run = trainer(3, lr=0.01), trainer(3, uncertain=True, lr=0.01)
    steps = [(plain.training_step(), run.training_step()) for _ in range(3)]
    assert torch.equal(steps[0][0].loss, steps[0][1].loss)
    assert torch.equal(steps[0][1].objective, steps[0][1].loss)
    for one, other in steps:
        assert torch.equal(one.objective, one.loss)
        assert torch.equal(other.loss, other.losses.mean())
    assert not torch.equal(steps[2][1].objective, steps[2][1].loss)


def test_weights_do_not_decay():
    """Decay would pull every level's loss towards 1."""
    run = trainer(1, uncertain=True, optimizer="adamw", weight_decay=0.1)
    for _ in range(2):
        assert [group["weight_decay"] for group in run.optimizer.param_groups] == [0.1, 0.0]
        run.load_state_dict(run.state_dict())


def test_bad_input():
    with pytest.raises(ValueError, match=r"parallel = 'fsdp': `uncertainty_weighting` is not split"):
        trainer(uncertain=True, world=World(0, 2), parallel="fsdp")
    with pytest.raises(ValueError, match="`uncertainty_weighting` is True there, and False here"):
        trainer().load_state_dict(trainer(uncertain=True).state_dict())
