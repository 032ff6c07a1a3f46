"""The loss of autoencoders: closed forms, the evidence bound, gradients, and what a linear one can reach."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from sde.autoencoder import Autoencoder, KLAutoencoder
from sde.autoencoder.loss import AutoencoderLoss, perceptual_distance
from sde.autoencoder.loss import kl_divergence as kl
from sde.data import Dataset
from sde.data.transform import Transform
from sde.training.augmentation import Augmentation
from sde.training.fit import fit
from sde.training.loss import BatchNoise
from sde.training.options import TrainingOptions
from sde.training.reconstruction import AutoencoderTrainer, ReconstructionLoss, latent_noise
from tests.sde.small_training import same


class Line(Autoencoder):
    """mean = a y, std = exp(log_s), decode(z) = w z, of entries one by one; or with a matrix that decodes."""

    def __init__(self, entries, latents=None):
        latents = latents or entries
        super().__init__((entries, 1), (latents, 1))
        self.a, self.w = nn.Linear(entries, latents, bias=False), nn.Linear(latents, entries, bias=False)
        self.log_s = nn.Parameter(torch.full((latents,), -1.0))

    def encode(self, y):
        mean = self.a(y.flatten(1))
        return mean[:, :, None], self.log_s.exp().expand_as(mean)[:, :, None]

    def decode(self, z):
        return self.w(z.flatten(1))[:, :, None]


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_divergence_is_that_of_torch():
    mean, std = 3 * draws(5, 2, 4, 3), draws(5, 2, 4, 3, seed=1).exp()
    ours = Independent(Normal(mean, std), 3)
    prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(std)), 3)
    torch.testing.assert_close(kl(mean, std), kl_divergence(ours, prior))
    assert kl(torch.zeros(1, 2), torch.ones(1, 2)) == 0


def test_loss_is_the_evidence_bound():
    """With l2 and kl_weight 2 s^2: 2 s^2 / D times the negative bound, less log sqrt(2 pi s^2) in each entry."""
    model, y, noise, s = Line(3, 2).double(), draws(6, 3, 1), draws(6, 2, 1, seed=1), 0.4
    mean, std = model.encode(y)
    decoder = Independent(Normal(model.decode(mean + std * noise), s), 2)
    prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(std)), 2)
    bound = decoder.log_prob(y) - kl_divergence(Independent(Normal(mean, std), 2), prior)
    expected = 2 * s**2 / 3 * (-bound - 3 * math.log(math.sqrt(2 * math.pi) * s))
    torch.testing.assert_close(AutoencoderLoss(kl_weight=2 * s**2)(model, y, noise), expected)


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("l2", 2)])
def test_reconstruction_is_over_what_is_real(name, power):
    model, y = Line(3).double(), draws(2, 3, 1)
    found = AutoencoderLoss(name, kl_weight=0.0)(model, y, torch.zeros(2, 3, 1, dtype=torch.float64))
    error = (model.decode(model.encode(y)[0]) - y).abs() ** power
    torch.testing.assert_close(found, error.mean((1, 2)))


def test_gradient_by_hand():
    """One entry: L = (w (a y + s e) - y)^2 + beta (a^2 y^2 + s^2 - 1 - 2 log s) / 2."""
    model, y, e, beta = Line(1).double(), draws(1, 1, 1), draws(1, 1, 1, seed=1), 0.3
    AutoencoderLoss(kl_weight=beta)(model, y, e).sum().backward()
    a, w, s = model.a.weight.item(), model.w.weight.item(), math.exp(-1)
    y, e = y.item(), e.item()
    error = w * (a * y + s * e) - y
    assert model.w.weight.grad.item() == pytest.approx(2 * error * (a * y + s * e))
    assert model.a.weight.grad.item() == pytest.approx(2 * error * w * y + beta * a * y**2)
    assert model.log_s.grad.item() == pytest.approx(s * (2 * error * w * e + beta * (s - 1 / s)))


def test_deterministic_encoders_have_no_divergence():
    class Point(Line):
        @property
        def deterministic(self):
            return True

        def encode(self, y):
            mean, std = super().encode(y)
            return mean, 0 * std

    model, y = Point(2), torch.randn(4, 2, 1, generator=torch.Generator().manual_seed(0))
    noise = torch.ones(4, 2, 1)
    assert torch.equal(AutoencoderLoss(kl_weight=1.0)(model, y, noise), AutoencoderLoss(kl_weight=0.0)(model, y, noise))


def test_perceptual_distance_is_of_directions():
    """Layers (B, C, *space) whose channels have unit length: 2 - 2 cos of the angle, averaged over space, summed."""
    angle = torch.tensor([0.3, 1.2])
    one = torch.tensor([[1.0, 0.0], [2.0, 0.0]])[:, :, None]
    other = 5 * torch.stack([angle.cos(), angle.sin()], 1)[:, :, None]
    found = perceptual_distance(lambda x: [x, 3 * x], one, other)
    torch.testing.assert_close(found, 2 * (2 - 2 * angle.cos()))
    model, y = Line(2), one
    loss = AutoencoderLoss(kl_weight=0.0, perceptual_weight=0.5)
    decoded = model.decode(model.encode(y)[0])
    expected = (decoded - y).square().mean((1, 2)) + 0.5 * perceptual_distance(lambda x: [x], y, decoded)
    torch.testing.assert_close(loss(model, y, torch.zeros(2, 2, 1), features=lambda x: [x]), expected)


def trainer(data, model=None, steps=400, loss=None, augmentation="none", **options):
    torch.manual_seed(0)
    own = TrainingOptions(**{"steps": steps, "batch_size": 64, "warmup_steps": 10, "max_grad_norm": 0.0, **options})
    loss = loss or ReconstructionLoss(AutoencoderLoss(kl_weight=0.0))
    return AutoencoderTrainer(model or Line(6, 2), data, loss, own, augmentation=Augmentation(augmentation))


def correlated(count=256):
    scale = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.3, 0.2])
    q, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2)))
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(3)) * scale @ q
    return Dataset((x - x.mean(0))[:, :, None], None, None, Transform())


def test_a_linear_autoencoder_reaches_the_error_of_pca():
    """The smallest eigenvalues of the covariance, over the entries (Eckart and Young 1936; Baldi and Hornik 1989)."""
    data = correlated()
    run = trainer(data, steps=250, lr=0.03, ema_decay=0.9, batch_size=256)
    run.module.log_s.data.fill_(-30.0)
    fit(run, [])
    run.module.load_state_dict(run.ema.module_state(run.module))
    y = data.items
    error = (run.module.decode(run.module.encode(y)[0]) - y).square().mean().item()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(y[:, :, 0].T.double(), correction=0))
    assert error == pytest.approx(eigenvalues[:4].sum().item() / 6, rel=5e-3)


def test_posteriors_noise_is_the_items_own():
    """Whatever part of a batch is drawn where; and there are no times."""
    coder, like = Line(6, 2), torch.zeros(64, 6, 1, dtype=torch.float64)

    def drawn(rows=slice(None)):
        draws = BatchNoise.draw(None, (64, 6, 1), torch.Generator().manual_seed(0), rows=rows)
        assert (draws.t == 0).all()
        assert (draws.factor == 1).all()
        return latent_noise(coder, draws, like)

    noise = drawn()
    assert noise.shape == (64, 2, 1)
    assert noise.dtype == torch.float64
    assert len(noise.unique()) == 128
    assert torch.equal(drawn(slice(10, 20)), noise[10:20])


def test_noise_and_augmentation_are_the_items_own():
    """A step is the same in two micro-batches as in one, and another's noise is another."""
    images = Dataset(torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(0)), None, None, Transform())
    losses = []
    for parts in (1, 2):
        torch.manual_seed(0)
        model = KLAutoencoder((1, 4, 4), channels=8, latent_channels=2)
        loss = ReconstructionLoss(AutoencoderLoss())
        run = trainer(images, model, loss=loss, augmentation="flip", gradient_accumulation=parts)
        seen = torch.cat([run.micro_batch(number)[0] for number in range(parts)])
        mirrored = (seen != images.items[run.batches.indices(0)]).flatten(1).any(1)
        assert 20 < mirrored.sum() < 44
        losses.append(run.training_step().losses)
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    assert len(losses[0].unique()) == 64


def test_a_continued_run_equals_an_uninterrupted_one():
    data = correlated(80)
    loss = ReconstructionLoss(AutoencoderLoss(kl_weight=0.1))
    straight, first, second = (trainer(data, steps=20, loss=loss) for _ in range(3))
    for each in (straight, first, second):
        # What was never measured is NaN, which equals nothing.
        each.module.noise_std.fill_(1.0)
    fit(straight, [])
    for _ in range(9):
        first.training_step()
    second.load_state_dict(first.state_dict())
    fit(second, [])
    assert same(second.state_dict(), straight.state_dict())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"reconstruction": "l3"}, "reconstruction = 'l3': needs one of l1, l2"),
        ({"kl_weight": -1.0}, "kl_weight = -1.0: needs a number from 0"),
        ({"perceptual_weight": math.nan}, "perceptual_weight = nan: needs a number from 0"),
    ],
)
def test_options_out_of_range(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        AutoencoderLoss(**options)
