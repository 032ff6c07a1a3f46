"""The law of every random draw: of each by itself, since strata and shuffles hide half a law from the batch as a whole.

A draw is turned into numbers that are uniform if its law is as documented, by a formula of its own, one row for each
repetition. Rows and columns are then tested for their law and for independence.
"""

import ast
import inspect
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from torch.special import ndtr

import samplers
import score_sde
import sde
from samplers import SeededNoise, generate
from samplers.likelihood.bounds import variational_bound
from samplers.likelihood.divergence import draw_probes
from samplers.likelihood.report import dequantized
from samplers.noise import seeded
from samplers.noise.brownian import BrownianNoise
from samplers.noise.seeded import item_seeds, sample_seeds
from score_sde.evaluation.perturbations import without_a_mode
from score_sde.kinds.masks import random_share
from score_sde.metrics.bootstrap import subsampled
from score_sde.metrics.sliced import orthonormal
from score_sde.metrics.splits import Division
from score_sde.restoration.tasks import measure
from sde import VPSDE, Transform
from sde.data.split import split
from sde.inverse import Mask
from sde.inverse.operators import CompressedSensing
from sde.networks.dropout import Dropout
from sde.training.loss import BatchNoise, stratified
from sde.training.times import TIMES
from tests.oracles.exact import Gaussian
from tests.sde import small_training

COUNT = 2000
VP = VPSDE()
LEAST = 1e-5
"""Of a p-value: a fault of a few percent in a law is far below it at this many rows, chance is not."""


def repeated(row):
    """row(generator) many times, one generator for all: (COUNT, d)."""
    generator = torch.Generator().manual_seed(7)
    return torch.stack([torch.as_tensor(row(generator), dtype=torch.float64) for _ in range(COUNT)])


def log_ratio(sde_, t):
    return (sde_.sigma(t) / sde_.alpha(t)).log()


def truncated_normal(sde_, t):
    ends = log_ratio(sde_, torch.tensor([sde_.t_min, sde_.t_max], dtype=torch.float64))
    low, high = scipy.stats.norm(-1.2, 1.2).cdf(ends)
    return (scipy.stats.norm(-1.2, 1.2).cdf(log_ratio(sde_, t)) - low) / (high - low)


def even_in_log_ratio(sde_, t):
    low, high = log_ratio(sde_, torch.tensor([sde_.t_min, sde_.t_max], dtype=torch.float64))
    return (log_ratio(sde_, t) - low) / (high - low)


CUMULATIVE = {
    "uniform": lambda sde_, t: (t - sde_.t_min) / (sde_.t_max - sde_.t_min),
    "log_snr": even_in_log_ratio,
    "log_normal": truncated_normal,
    # g^2 / sigma^2 = -d log_snr / dt.
    "likelihood": even_in_log_ratio,
}
"""The share of training times before t, written out; logit_normal is log_normal by another name."""
assert {*CUMULATIVE, "logit_normal"} == {*TIMES}


def times(name):
    return repeated(lambda g: CUMULATIVE[name](VP, BatchNoise.draw(VP, (4, 1), g, name).t[:1]))


def training():
    """Of one item of a batch: what decides on its condition, its noise, and where it lies in its cell."""
    levels = Transform.of_levels(4)

    def row(generator):
        draws = BatchNoise.draw(VP, (2, 3), generator)
        cell = draws.dequantize(torch.ones(2, 3), levels) - 1
        return torch.cat([draws.u[:1], ndtr(draws.z[0]), ndtr(draws.z[1, :1]), cell[0], cell[1, :1]])

    return repeated(row)


def seeds_of_samples():
    """Two draws of each kind, of neighboring seeds."""
    noise, like = SeededNoise(sample_seeds(3, COUNT)), torch.empty(COUNT, 2, dtype=torch.float64)
    return torch.cat([ndtr(noise(like)), noise.uniform(like), ndtr(noise(like)), noise.uniform(like)], 1)


def brownian_steps():
    """Steps that halve the clock, so that what lies behind them counts."""
    noise, like = BrownianNoise(sample_seeds(3, 400), VP), torch.empty(400, 1, dtype=torch.float64)
    points = VP.t_of_log_snr(math.log(2) * torch.arange(-2, 2, dtype=torch.float64))
    steps = [noise.between(t, s) for t, s in pairwise(points)]
    return torch.cat([ndtr(step(like)) for step in steps] + [ndtr(steps[-1](like))], 1)


def starts(**start):
    """The state of a run's first call, x_t = alpha x_0 + sigma z."""
    seen = []

    class Spy(Gaussian):
        def forward(self, x, t):
            seen.append((x, t))
            return super().forward(x, t)

    model = Spy(VP, torch.zeros(2, dtype=torch.float64), 0.5)
    first = torch.full((COUNT, 2), 3.0, dtype=torch.float64) if start else torch.zeros(COUNT, 2, dtype=torch.float64)
    given = {"start": first, **start} if start else {}
    generate(model, samplers.SAMPLERS["euler"](), COUNT, (2,), batch_size=COUNT, seed=5, steps=1, **given)
    x, t = seen[0]
    return ndtr((x - model.sde.alpha(t) * first) / model.sde.sigma(t))


def bound():
    """Times with a density proportional to v snr / (1 + v snr) in log snr, v = |x|^2 / dim + 0.1, and normal noise."""
    seen, transform = [], Transform((0.0,), (1.0,))
    model = Gaussian(VP, torch.zeros(2, dtype=torch.float64), 1.0, transform=transform)
    model.register_forward_pre_hook(lambda _, given: seen.append(given))
    x = torch.ones(COUNT, 2, dtype=torch.float64)
    variational_bound(model, x, draws=1)
    state, t = seen[0]
    ends = torch.tensor([model.sde.t_max, model.sde.t_min], dtype=torch.float64)
    low, high = (1 + 1.1 * model.sde.log_snr(ends).exp()).log()
    share = ((1 + 1.1 * model.sde.log_snr(t).exp()).log() - low) / (high - low)
    z = (state - model.sde.alpha(t)[:, None]) / model.sde.sigma(t)[:, None]
    return torch.cat([share[:, None], ndtr(z)], 1)


def bases():
    """A vector of a basis in four dimensions, up to its sign, which a distance does not see: a coordinate's square is
    Beta(1 / 2, 3 / 2)."""
    vectors = torch.stack([orthonormal(4, 4, seed) for seed in range(COUNT)])
    eye = torch.eye(4, dtype=torch.float64).expand_as(vectors)
    torch.testing.assert_close(vectors @ vectors.mT, eye)
    return torch.from_numpy(scipy.stats.beta(0.5, 1.5).cdf(vectors[:, :1, 0].square().numpy()))


def projections():
    matrices = [CompressedSensing((2,), 4, seed).matrix.double().flatten() for seed in range(COUNT)]
    return ndtr(2 * torch.stack(matrices))


def measurements():
    y = measure(Mask(torch.ones(2, dtype=torch.bool), (2,)), torch.zeros(COUNT, 2, dtype=torch.float64), 0.5, 3)
    return ndtr(y.double() / 0.5)


UNIFORM = {
    **{f"training times, {name}": lambda name=name: times(name) for name in CUMULATIVE},
    "place in a stratum": lambda: repeated(lambda g: (4 * stratified(4, g)) % 1),
    "a batch's items": training,
    "samples' seeds": seeds_of_samples,
    "Brownian steps": brownian_steps,
    "starts at noise": starts,
    "starts at data": lambda: starts(start_time=0.4),
    "bound": bound,
    "gaussian probes": lambda: ndtr(draw_probes((COUNT, 2), 2, 3, 0, "gaussian").permute(1, 0, 2).flatten(1)),
    "dequantization": lambda: torch.cat(
        [dequantized(Transform.of_levels(4), torch.ones(COUNT, 2, dtype=torch.float64), 3, d) - 1 for d in (0, 1)], 1
    ),
    "directions": bases,
    "projections": projections,
    "measurements": measurements,
}


@pytest.mark.parametrize("name", UNIFORM)
def test_law(name):
    found = UNIFORM[name]().double()
    assert found.min() >= 0
    assert found.max() <= 1
    columns = found.T.numpy()
    for numbers in (*columns, columns.flatten()):
        assert scipy.stats.kstest(numbers, "uniform").pvalue > LEAST
    independent(scipy.stats.norm.ppf(np.clip(columns, 1e-9, 1 - 1e-9)))


def independent(columns):
    """No column (d, n) goes with another, nor with itself a row later, nor does their size."""
    for scores in (columns, columns**2):
        later = np.concatenate([scores[:, :-1], scores[:, 1:]])
        correlation = np.corrcoef(later)
        np.fill_diagonal(correlation, 0)
        assert np.nan_to_num(correlation).max() < 6 / math.sqrt(columns.shape[1]), correlation.round(3)
        assert np.nan_to_num(correlation).min() > -6 / math.sqrt(columns.shape[1]), correlation.round(3)


def strata():
    """The part of (0, 1) that the first and the last item of a batch draw their times from: any, and never the same."""
    parts = repeated(lambda g: (4 * stratified(4, g)).floor())
    assert (parts.sort(1).values == torch.arange(4)).all()
    return parts[:, :1], 4


def rademacher():
    return (draw_probes((COUNT, 2), 2, 3, 0).permute(1, 0, 2).flatten(1) + 1) / 2, 2


def dropped(p):
    def draw():
        torch.manual_seed(0)
        x = Dropout(p)(torch.ones(COUNT, 4))
        torch.testing.assert_close(x[x > 0], torch.full_like(x[x > 0], 1 / (1 - p)), rtol=1e-4, atol=0)
        return (x > 0).double(), (p, 1 - p)

    return draw


def observed():
    return torch.stack([random_share((8,), "0.125", seed).nonzero()[0] for seed in range(COUNT)]), 8


def halves():
    """Which of eight items the halves of a bootstrap hold: any, none twice; those of either set by themselves."""
    seen = []

    def see(x, y):
        seen.append(torch.cat([x, y]).flatten())
        return float(len(seen))

    items = torch.arange(8.0)[:, None]
    subsampled(see, items, items, **{RESAMPLES: COUNT})
    parts = torch.stack(seen[1:])
    assert all(len(half.unique()) == 4 for row in parts for half in row.split(4))
    return parts[:, ::4], 8


def orders():
    """Where the first item of five is in each epoch; every epoch has every item once."""
    trainer = small_training.trainer()
    trainer.batches.data = small_training.dataset(5)
    found = torch.stack([trainer.batches.indices(5 * epoch)[:5] for epoch in range(COUNT)])
    assert (found.sort(1).values == torch.arange(5)).all()
    return found[:, :1], 5


def lost():
    """The item that a mode is lost around: any of eight, each of which is nearest to itself."""
    generator, x = torch.Generator().manual_seed(7), torch.arange(8.0)[:, None]
    left = [without_a_mode(x, x[:0], 1 / 8, generator) for _ in range(COUNT)]
    return torch.stack([28 - kept.sum(0) for kept in left]), 8


def parts_of_splits():
    """A real item for samples and the one that it is held against, over splits of ten."""
    division = Division(3, 4)
    return torch.stack([torch.stack([part[0] for part in division.positions(6, 4, i)]) for i in range(COUNT)]), 10


RESAMPLES = next(name for name in inspect.signature(subsampled).parameters if name.endswith("samples"))

DISCRETE = {
    "strata": strata,
    "rademacher probes": rademacher,
    "dropout 0.5": dropped(0.5),
    "dropout 0.2": dropped(0.2),
    "observed entries": observed,
    "halves": halves,
    "epochs": orders,
    "lost modes": lost,
    "splits": parts_of_splits,
}


@pytest.mark.parametrize("name", DISCRETE)
def test_law_of_a_choice(name):
    """Of columns of integers from 0: each with its share, equal ones where only their number is given."""
    found, shares = DISCRETE[name]()
    shares = np.full(shares, 1 / shares) if isinstance(shares, int) else np.array(shares)
    columns = found.double().T.numpy()
    for column in columns:
        counts = np.bincount(column.astype(int), minlength=len(shares))
        assert scipy.stats.chisquare(counts, len(column) * shares).pvalue > LEAST
    independent(columns)


def test_the_held_out_part_is_any():
    """Of items in an order, as files often are, those held out are no run of neighbors."""
    _, test = split(torch.arange(COUNT).float()[:, None], None, Transform(), 0.25)
    index = test.items.flatten().numpy()
    assert len(np.unique(index)) == COUNT / 4
    assert scipy.stats.kstest((index + 0.5) / COUNT, "uniform").pvalue > LEAST
    # Gaps of neighbors are geometric.
    assert scipy.stats.chisquare([(np.diff(index) == 1).sum(), (np.diff(index) > 1).sum()],
                                 (COUNT / 4 - 1) * np.array([0.25, 0.75])).pvalue > LEAST  # fmt: skip


def test_streams_do_not_meet():
    """Random numbers for different purposes under one seed are independent, item by item, and so are seeds."""
    count = 1000
    streams = {
        "samples": sample_seeds(0, count),
        "samples of seed 1": sample_seeds(1, count),
        "later samples": sample_seeds(0, count, first=count),
        **{
            name: [s + getattr(seeded, name) for s in sample_seeds(0, count)]
            for name in ("START_OFFSET", "PILOT_OFFSET")
        },
        **{
            f"{name}, draw {draw}": item_seeds(0, getattr(seeded, name), count, draw=draw)
            for name in ("PROBES", "DEQUANTIZATION", "MEASUREMENT", "BOUNDS")
            for draw in (0, 1)
        },
    }
    like = torch.empty(count, 1, dtype=torch.float64)
    columns = np.stack([SeededNoise(seeds)(like)[:, 0].numpy() for seeds in streams.values()])
    assert len(np.unique(columns)) > 0.999 * columns.size
    independent(columns)


DRAWING = {
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "bernoulli", "multinomial", "normal"),
    *("random_", "normal_", "uniform_", "bernoulli_", "exponential_", "trunc_normal_"),
    *("random", "integers", "permutation", "shuffle", "choice", "standard_normal", "uniform"),
    "multivariate_hypergeometric",
}
"""Names of functions that draw."""

LAWS = {
    "samplers/likelihood/bounds.py": "bound",
    "samplers/likelihood/report.py": "dequantization",
    "samplers/noise/brownian.py": "Brownian steps",
    "samplers/noise/door.py": "passes on what it is given",
    "samplers/noise/laws.py": "samples' seeds, gaussian probes, rademacher probes",
    "samplers/noise/tape.py": "passes on what it is given",
    "samplers/planning/pilots.py": "some of many entries, which are looked at alone",
    "score_sde/evaluation/class_mix.py": "tests/score_sde/test_class_law.py",
    "score_sde/evaluation/denoising_errors.py": "an order of the items, each of which is taken once",
    "score_sde/evaluation/judge.py": "batches of a fit",
    "score_sde/evaluation/perturbations.py": "lost modes, and tests/score_sde/test_splits.py",
    "score_sde/evaluation/tradeoff.py": "tests/score_sde/test_tradeoff.py",
    "score_sde/diagnosis/examination.py": "a trial",
    "score_sde/diagnosis/students.py": "a trial",
    "score_sde/kinds/masks.py": "observed entries",
    "score_sde/metrics/bootstrap.py": "halves",
    "score_sde/metrics/sliced.py": "directions",
    "score_sde/metrics/splits.py": "splits",
    "score_sde/metrics/two_sample.py": "halves to fit to",
    "score_sde/run/class_law.py": "tests/score_sde/test_class_law.py",
    "score_sde/run/sizes.py": "tests/score_sde/test_unequal_items.py",
    "sde/autoencoder/measurement.py": "tests/sde/test_latents.py",
    "sde/data/split.py": "test_the_held_out_part_is_any",
    "sde/data/toys.py": "data",
    "sde/inverse/operators/compressed_sensing.py": "projections",
    "sde/model/law.py": "noise that a model is tried on",
    "sde/networks/adm_classifier.py": "first positions of a pool, which are learned",
    "sde/networks/dropout.py": "dropout 0.5, dropout 0.2",
    "sde/networks/embedding.py": "initial values",
    "sde/networks/sequence.py": "initial values",
    "sde/networks/linear_attention.py": "first keys and values of a memory, which are learned",
    "sde/networks/lora.py": "first entries of A, which are learned; tests/sde/test_lora.py",
    "sde/training/ignored_inputs.py": "a trial",
    "sde/training/loss.py": "training times, a batch's items, strata",
    "sde/training/batches.py": "epochs",
    "sde/training/uncertainty.py": "frequencies and phases of features, whose weights are learned",
}
"""Every file that draws random numbers, and where their law is tested, or why it does not matter."""


def test_no_draw_is_without_its_law():
    found = set()
    for package in (sde, samplers, score_sde):
        root = Path(package.__file__).parent
        for file in root.rglob("*.py"):
            calls = (n.func for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.Call))
            if any(isinstance(f, ast.Attribute) and f.attr in DRAWING for f in calls):
                found.add(file.relative_to(root.parent).as_posix())
    assert found == set(LAWS)
