"""Losses of distillation on Gaussian data, where flow maps, solvers' residuals and expectations are closed forms."""

import math

import pytest
import torch

from samplers import SAMPLERS
from sde import SDES, Denoiser
from sde.distillation import METHODS, FlowMapTeacher, SolvedTeacher
from sde.distillation.consistency import Consistency, around, consistency_losses
from sde.distillation.distance import mean_square, pseudo_huber
from sde.distillation.ect import EasyConsistency
from sde.distillation.meanflow import MeanFlow
from sde.distillation.progressive import Progressive
from sde.training.loss import stratified
from sde.training.times import log_normal
from tests.oracles.planted_map import PlantedFlowMap, draws_at, quadrature

X0, Z, WEIGHTS = quadrature()
PROCESSES = {name: kind() for name, kind in SDES.items()}
WRONG = {"offset": {"offset": 1.0}, "slope": {"slope": 1.0}}


def at(sde, noise_level):
    return sde.t_of_noise_level(torch.tensor(noise_level, dtype=torch.float64)).item()


class Exact:
    """The exact flow as a teacher."""

    def __init__(self, sde):
        self.map = PlantedFlowMap(sde)

    def solve(self, x, t, s, cond):
        return self.map(x, t, s).detach()

    def denoised(self, x, t, cond):
        return self.map.mean_denoised(x, t, t).detach()


def solver(sde, name):
    gaussian = PlantedFlowMap(sde).gaussian
    return SolvedTeacher(lambda cond: gaussian, SAMPLERS[name]())


def distilled(kind, student, teacher, high, low, target=None, weighting="state"):
    """The loss (9,) of one interval between two noise levels."""
    sde = student.sde
    t, s = at(sde, high), at(sde, low)
    if kind == "progressive":
        times = [t, at(sde, math.sqrt(high * low)), s]
        method = Progressive(steps=1, first_steps=1, weighting=weighting)
    else:
        times = [*([sde.t_max] if t < sde.t_max else []), t, s, sde.t_min]
        method = Consistency(distance="mean_square", weighting="none")

    def grid(process, steps):
        return torch.tensor(times, dtype=torch.float64)

    return method.loss(student, X0, None, draws_at(0.5 * (t + s), Z), 0.0, teacher=teacher, target=target, grid=grid)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("kind", ["progressive", "consistency"])
def test_exact_steps_leave_the_exact_map_alone(kind, process):
    sde = PROCESSES[process]
    for high, low in ((5.0, 2.0), (1.0, 0.1), (0.4, 0.2)):
        student = PlantedFlowMap(sde)
        losses = distilled(kind, student, Exact(sde), high, low, weighting="truncated_snr")
        assert losses.max() < 1e-6 and student.gradient(losses.mean()) < 1e-6
        for wrong in WRONG.values():
            student = PlantedFlowMap(sde, **wrong)
            losses = distilled(kind, student, Exact(sde), high, low, target=PlantedFlowMap(sde))
            assert student.gradient(losses.mean()) > 1e-2


@pytest.mark.parametrize("process", ["flow", "vp", "ve"])
@pytest.mark.parametrize("name", ["ddim", "heun"])
@pytest.mark.parametrize("kind", ["progressive", "consistency"])
def test_solvers_leave_residuals_of_their_order(kind, name, process):
    """At the exact map the loss falls as h^(2 p + 2); its gradient by the coefficients of x_s, which is twice the
    residual times x, as h^(p + 1): for the consistency function itself, which B makes of M at any h."""
    sde, order = PROCESSES[process], SAMPLERS[name].order
    found = []
    for step in (0.2, 0.1, 0.05):
        student = PlantedFlowMap(sde)
        loss = (WEIGHTS * distilled(kind, student, solver(sde, name), 1.0, math.exp(-step))).sum()
        scale = student.factors(*(torch.tensor(at(sde, r)) for r in (1.0, math.exp(-step))))[1]
        gradient = student.gradient(loss) / (scale if kind == "progressive" else 1.0)
        found.append((loss.item(), float(gradient)))
    (_, _), (loss, gradient), (half_loss, half_gradient) = found
    assert math.log2(loss / half_loss) == pytest.approx(2 * order + 2, abs=0.4)
    assert math.log2(gradient / half_gradient) == pytest.approx(order + 1, abs=0.3)


def expected_gradient(method, student, t, progress=0.0, **options):
    losses = method.loss(student, X0, None, draws_at(t, Z), progress, **options)
    return student.gradient((WEIGHTS * losses).sum())


def easy(progress_of_a=1):
    return EasyConsistency(k=0.0, doublings=8, distance="mean_square", weighting="none")


@pytest.mark.parametrize("process", ["flow", "vp", "ve"])
def test_training_is_biased_by_the_square_of_the_gap(process):
    """Without a teacher the loss keeps a variance; its expected gradient falls as (r_t - r_s)^2."""
    sde = PROCESSES[process]
    t, method = at(sde, 1.0), easy()
    tuned = [expected_gradient(method, PlantedFlowMap(sde), t, a / 8 + 1e-9) for a in (3, 4, 5)]
    trained = []
    for gap in (1 / 16, 1 / 32, 1 / 64):
        times = torch.tensor([sde.t_max, t, at(sde, 1 - gap), sde.t_min], dtype=torch.float64)
        training = Consistency(distilled=False, distance="mean_square", weighting="none")
        between = 0.5 * (t + at(sde, 1 - gap))
        trained.append(expected_gradient(training, PlantedFlowMap(sde), between, grid=lambda *_, times=times: times))
    assert tuned == pytest.approx(trained, rel=1e-6)
    assert math.log2(tuned[1] / tuned[2]) == pytest.approx(2, abs=0.1)
    for wrong in WRONG.values():
        exact = PlantedFlowMap(sde)
        assert expected_gradient(method, PlantedFlowMap(sde, **wrong), t, 5 / 8, target=exact) > 1e-2


@pytest.mark.parametrize("process", ["flow", "gvp", "vp", "ve"])
def test_mean_flow_identity(process, monkeypatch):
    """The expected gradient, x_0 in the place of D or a teacher's D, vanishes at the exact map for every pair of
    times, and at no other."""
    sde = PROCESSES[process]
    levels = [0.1, 1.0, 5.0]
    ends = [sde.t_min, *(at(sde, level) for level in levels)]
    for i, t in enumerate(ends[1:], 1):
        for s in ends[: i + 1]:
            pair = tuple(torch.full((9,), end, dtype=torch.float64) for end in (t, s))
            monkeypatch.setattr(MeanFlow, "pair", lambda self, sde, draws, pair=pair: pair)
            for method in (MeanFlow(adaptive_power=0), MeanFlow(adaptive_power=0, distilled=True)):
                given = {"teacher": Exact(sde)} if method.distilled else {}
                assert expected_gradient(method, PlantedFlowMap(sde), t, **given) < 1e-6
                for wrong in WRONG.values():
                    assert expected_gradient(method, PlantedFlowMap(sde, **wrong), t, **given) > 1e-2


def test_mean_flow_is_that_of_the_paper_on_the_straight_path():
    """u = (x - M) / t, u~ = v - (t - s) (v grad u + du/dt) with v = z - x_0 (Geng et al. 2025, eqs. 9 and 10)."""
    sde = PROCESSES["flow"]
    student = PlantedFlowMap(sde, 0.2, -0.1)
    t, s = (torch.full((9,), end, dtype=torch.float64) for end in (0.7, 0.2))
    x, v = sde.perturb(X0, t, Z), Z - X0

    def average(x, t):
        return (x - student.mean_denoised(x, t, s)) / t[:, None]

    u, change = torch.func.jvp(average, (x, t), (v, torch.ones_like(t)))
    loss = mean_square(u - (v - 0.5 * change).detach())
    method = MeanFlow(adaptive_power=0.0)
    object.__setattr__(method, "pair", lambda sde, draws: (t, s))
    found = method.loss(student, X0, None, draws_at(0.7, Z), 0.0)
    torch.testing.assert_close(found, loss)
    for ours, theirs in zip(*(torch.autograd.grad(one.sum(), [*student.parameters()]) for one in (found, loss))):
        torch.testing.assert_close(ours, theirs)


def test_mean_flow_guides_itself():
    """D = w x_0 + k M(cond) + (1 - w - k) M(null), which leaves a map alone whose D is guided by w / (1 - k)."""
    sde = PROCESSES["vp"]

    class Two(PlantedFlowMap):
        def mean_denoised(self, x, t, s, cond=None):
            plain = super().mean_denoised(x, t, s)
            return plain + (1.5 if (cond["labels"] == 0).all() else 0.0)

    t = torch.full((9,), at(sde, 1.0), dtype=torch.float64)
    method = MeanFlow(guidance_scale=1.8, guidance_mixing=0.4)
    x = sde.perturb(X0, t, Z)
    guided = method._guided(Two(sde), x, t, {"labels": torch.zeros(9, dtype=torch.long)}, X0)
    null = PlantedFlowMap(sde).mean_denoised(x, t, t).detach()
    torch.testing.assert_close(guided, 1.8 * X0 + 0.4 * (null + 1.5) - 1.2 * null)


@pytest.mark.parametrize("process", ["flow", "vp", "ve"])
def test_progressive_target_is_two_ddim_steps(process):
    """M~ = (z_s - (sigma_s / sigma_t) z_t) / (alpha_s - (sigma_s / sigma_t) alpha_t), z_s from two DDIM steps written
    out from Salimans and Ho 2022, eq. 8 and algorithm 2: a student that says it has no loss, any other its error."""
    sde = PROCESSES[process]
    gaussian = PlantedFlowMap(sde).gaussian
    times = [torch.tensor(at(sde, r), dtype=torch.float64) for r in (2.0, 0.9, 0.3)]
    x = sde.perturb(X0, times[0], Z)
    z = x
    for start, end in zip(times, times[1:], strict=False):
        denoised = gaussian(z, start)
        noise = (z - sde.alpha(start) * denoised) / sde.sigma(start)
        z = sde.alpha(end) * denoised + sde.sigma(end) * noise
    ratio = sde.sigma(times[2]) / sde.sigma(times[0])
    told = (z - ratio * x) / (sde.alpha(times[2]) - ratio * sde.alpha(times[0]))

    class Says:
        def __init__(self, error):
            self.sde, self.error = sde, error

        def mean_denoised(self, x, t, s, cond):
            return told + self.error

    for weighting, weight in {"truncated_snr": 1.0, "snr_plus_one": 1.25}.items():
        method = Progressive(steps=1, first_steps=1, weighting=weighting)
        for error in (0.0, 0.3):
            losses = method.loss(
                Says(error), X0, None, draws_at(times[1].item(), Z), 0.0,
                teacher=solver(sde, "ddim"), grid=lambda *_: torch.stack(times),
            )  # fmt: skip
            torch.testing.assert_close(
                losses, torch.full((9,), weight * error**2, dtype=torch.float64), atol=1e-12, rtol=1e-9
            )


def test_progressive_stages_are_nested():
    method, sde = Progressive(steps=1, first_steps=4), PROCESSES["flow"]
    from samplers import GRIDS

    stages = method.stages()
    assert [stage.steps for stage in stages] == [4, 2, 1]
    times = [stage.sampling_times(sde, GRIDS["karras"]).tolist() for stage in stages]
    assert [len(found) for found in times] == [5, 3, 2]
    assert times[1] == times[0][::2] and times[2] == [sde.t_max, sde.t_min]


@pytest.mark.parametrize("name", ["ddim", "heun"])
@pytest.mark.parametrize("process", ["flow", "vp"])
def test_solved_teacher_steps_each_row_at_its_own_times(name, process):
    """As the sampler steps them one by one; from an open noise end as every run does."""
    sde = PROCESSES[process]
    teacher = solver(sde, name)
    t = torch.tensor([sde.t_max, 0.6, 0.3], dtype=torch.float64)
    s = torch.tensor([0.5, 0.2, 0.25], dtype=torch.float64)
    x = sde.perturb(X0[:3], t, Z[:3])
    found = teacher.solve(x, t, s, None)
    for row in range(3):
        if sde.open_end and row == 0:
            model = teacher.bind(None)
            alone = sde.alpha(s[0]) * model(x[:1], t[0]) + sde.sigma(s[0]) * x[:1]
        else:
            alone, _ = SAMPLERS[name]().step(teacher.bind(None), x[row : row + 1], t[row], s[row], None)
        torch.testing.assert_close(found[row : row + 1], alone, rtol=1e-12, atol=1e-12)


def test_earlier_student_as_teacher():
    student = PlantedFlowMap(PROCESSES["vp"], 0.2, 0.1)
    teacher = FlowMapTeacher(student)
    t, s = (torch.full((9,), end, dtype=torch.float64) for end in (0.7, 0.2))
    assert torch.equal(teacher.solve(X0, t, s, None), student(X0, t, s))
    assert torch.equal(teacher.denoised(X0, t, None), student.mean_denoised(X0, t, t))


def test_consistency_law_is_the_discretized_log_normal():
    """Shares of the intervals are erf((log r_{i+1} - P_mean) / sqrt 2 P_std) - erf(...) (Song and Dhariwal 2024, eq.
    10), normalized."""
    sde = PROCESSES["ve"]
    generator = torch.Generator().manual_seed(0)
    t = log_normal(sde, stratified(20000, generator), mean=-1.1, std=2.0)
    times = sde.t_of_noise_level(torch.logspace(1, -2, 11, dtype=torch.float64))
    upper, lower = around(times, t)
    inside = (t <= times[0]) & (t >= times[-1])
    assert ((lower <= t) & (t <= upper))[inside].all()
    edges = torch.erf((sde.noise_level(times).log() + 1.1) / (2.0 * math.sqrt(2)))
    for i in range(1, 9):
        share = (upper == times[i]).double().mean().item()
        ends = sde.log_snr(torch.tensor([sde.t_max, sde.t_min], dtype=torch.float64))
        whole = torch.erf((-0.5 * ends + 1.1) / (2.0 * math.sqrt(2)))
        assert share == pytest.approx(((edges[i] - edges[i + 1]) / (whole[0] - whole[1])).item(), abs=2e-4)


def test_intervals_double_in_equal_shares():
    method = Consistency(first_intervals=4, last_intervals=25)
    assert [method.intervals(p) for p in (0.0, 0.2, 0.26, 0.51, 0.76, 0.999)] == [4, 4, 8, 16, 25, 25]
    assert Consistency(first_intervals=8, last_intervals=8).intervals(0.9) == 8


def test_easy_gaps_are_those_of_the_paper():
    """r / t = 1 - q^-a (1 + 8 / (1 + e^t)) at sigma_data = 0.5, never below 0 (Geng et al. 2024, section 3.2)."""
    method = EasyConsistency(base=2.0, k=8.0, b=1.0, doublings=4)
    t = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    for a in range(1, 5):
        n = 1 + 8 / (1 + t.exp())
        expected = (1 - n / 2**a).clamp(min=0)
        torch.testing.assert_close(1 - method.gap(t, (a - 0.5) / 4), expected)


def test_pseudo_huber():
    d = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-6, 0.0]], dtype=torch.float64, requires_grad=True)
    c = 0.5
    expected = (d.detach().square().mean(1) + c**2).sqrt() - c
    torch.testing.assert_close(pseudo_huber(d, c).detach(), expected, rtol=1e-4, atol=1e-15)
    root = pseudo_huber(d, 0.0)
    torch.testing.assert_close(root.detach(), d.detach().square().mean(1).sqrt())
    assert torch.autograd.grad(root.sum(), d)[0].isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_padding_adds_nothing(name):
    """The loss of a padded item is that of its real part, whatever lies behind it."""
    from samplers import GRIDS

    sde = PROCESSES["vp"]
    method = METHODS[name]()
    student = PlantedFlowMap(sde, 0.2, 0.1)

    def losses(x0, z, sizes):
        draws = draws_at(0.6, z)._replace(sizes=sizes)
        return method.loss(student, x0, None, draws, 0.3, teacher=Exact(sde), grid=GRIDS[method.grid])

    real = torch.randn(4, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = torch.randn(4, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(real, (0, 2))
    alone = losses(real, z, None)
    for behind in (0.0, 7.0):
        noise = torch.nn.functional.pad(z, (0, 2), value=behind)
        torch.testing.assert_close(losses(padded, noise, torch.full((4,), 3)), alone)


def test_both_sides_see_the_same_dropout():
    """With both times the same the difference is zero, and would not be with other masks."""
    from sde.distillation import FlowMap
    from sde.networks import MLP

    torch.manual_seed(0)
    network = MLP((6,), None, width=16, layers=2, dropout=0.5)
    student = FlowMap.of(Denoiser(network, PROCESSES["vp"])).train()
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x0 = torch.randn(5, 6)
    draws = draws_at(0.6, torch.randn(5, 6))
    found = consistency_losses(
        student, x0, None, draws, (draws.t, draws.t), None, None, lambda d, sizes: mean_square(d, sizes), "none"
    )
    assert found.max() < 1e-12
    assert (student(x0, draws.t, draws.t - 0.1) - student(x0, draws.t, draws.t - 0.1)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("progressive", {"first_steps": 6}, "first_steps = 6: needs a power of two"),
        ("progressive", {"steps": 0}, "steps = 0: needs a power of two"),
        ("progressive", {"steps": 8, "first_steps": 4}, "first_steps = 4: needs at least steps = 8"),
        ("progressive", {"weighting": "snr"}, "weighting = 'snr': needs one of truncated_snr"),
        ("consistency", {"distance": "lpips"}, "distance = 'lpips': needs one of mean_square, pseudo_huber"),
        ("consistency", {"first_intervals": 9, "last_intervals": 8}, "first_intervals = 9 and last_intervals = 8"),
        ("consistency", {"target_decay": 1.5}, "target_decay = 1.5: needs a number from 0 to 1"),
        ("ect", {"base": 0.5}, "base = 0.5: needs a number from 1"),
        ("ect", {"weighting": ""}, "weighting = '': needs one of none, gap, relative_gap"),
        ("meanflow", {"jump_share": 2}, "jump_share = 2: needs a number from 0 to 1"),
        ("meanflow", {"guidance_mixing": 1.0}, "guidance_mixing = 1.0: needs a number from 0 to below 1"),
        ("meanflow", {"distilled": True, "guidance_scale": 2.0}, "guided by a scale of its own"),
    ],
)  # fmt: skip
def test_numbers_out_of_place(name, options, words):
    with pytest.raises(ValueError) as error:
        METHODS[name](**options)
    assert words in str(error.value)
