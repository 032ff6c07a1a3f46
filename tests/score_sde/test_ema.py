"""Averages of parameters: their weights of the past, several at once, files, and lengths rebuilt afterwards."""

import math
import shutil

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn

from score_sde.config.config import config_path, read_config, resolve
from score_sde.evaluation.validation import Validation
from score_sde.modes.ema import reconstruct_ema
from score_sde.run.folder import Run
from score_sde.training.spec import denoiser_spec
from sde.checkpoint.models import load_model, save_model
from sde.checkpoint.snapshots import MAX_SNAPSHOTS, find_snapshots, reconstruct, save_averages, solve, stored_spec
from sde.checkpoint.spec import BUILDERS, build_denoiser
from sde.training.ema import EMA, Averages, PowerEMA, follow
from sde.training.ema_profile import MAX_RELATIVE_STD, Profile, combination, exponent, inner_products

STEPS = 500
LENGTHS = (0.01, 0.05, 0.1, 0.2, 0.28, MAX_RELATIVE_STD)


def trajectory(steps=STEPS, size=6):
    """Parameters (steps, 2, size), float64, of a bent path with noise, far from zero."""
    tau = torch.arange(1, steps + 1, dtype=torch.float64)[:, None, None] / steps
    speed = torch.arange(1, 2 * size + 1, dtype=torch.float64).view(2, size)
    noise = torch.randn(steps, 2, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return 3 + torch.sin(speed * tau) + 1 / (tau + 0.05) ** 0.5 + 0.1 * noise


def test_a_module_that_follows():
    """Its parameters go their share of the way, in their own precision; its buffers are those of the other."""
    average, module = nn.BatchNorm1d(3).double(), nn.BatchNorm1d(3).double()
    nn.init.constant_(module.weight, 5.0)
    module.running_mean += 2
    follow(average, module, 0.25)
    assert average.weight.tolist() == [2.0] * 3
    assert average.running_mean.tolist() == [2.0] * 3
    assert module.weight.tolist() == [5.0] * 3


def walk(module, averages, path, callback=lambda n: None):
    """Move the parameters of a BatchNorm1d along the path, update the averages, count in its buffers."""
    for n, (weight, bias) in enumerate(path, 1):
        with torch.no_grad():
            module.weight.copy_(weight)
            module.bias.copy_(bias)
            module.running_mean.fill_(n)
            module.num_batches_tracked.fill_(n)
        for average in averages:
            average.update(module)
        callback(n)


def weights_of(state):
    return torch.stack([state["weight"], state["bias"]]).double()


def power_sum(path, relative_std):
    """The sum of theta_n (n^(gamma + 1) - (n - 1)^(gamma + 1)) / t^(gamma + 1), float64."""
    gamma, n = exponent(relative_std), np.arange(len(path) + 1) / len(path)
    return torch.tensordot(torch.from_numpy(np.diff(n ** (gamma + 1))), path, 1)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def density(profile):
    return lambda tau: (profile.gamma + 1) * (tau / profile.t) ** profile.gamma / profile.t * (tau <= profile.t)


def test_average_of_parameters_only():
    module = nn.BatchNorm1d(2)
    ema = EMA(module, 0.5)
    weight, expected = module.weight.detach().clone(), module.weight.detach().clone()
    for n in range(1, 6):
        with torch.no_grad():
            module.weight += n
            module.running_mean += 10
        weight = module.weight.detach()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weight
        ema.update(module)
    state = ema.module_state(module)
    torch.testing.assert_close(state["weight"], expected)
    assert torch.equal(state["running_mean"], module.running_mean)
    assert ema.module_state(module)["weight"].data_ptr() != module.weight.data_ptr()


def test_ramp_up_of_the_half_life():
    """Before update n the half-life is at most a share of the n - 1 updates: what the first arrives at is the average,
    and after as many more updates of still weights as the half-life has, half of a difference is left."""
    decay = 0.5 ** (1 / 40)
    ema = EMA(nn.BatchNorm1d(2), decay, rampup_ratio=0.05)
    weights = []
    for _ in range(2000):
        ema.updates += 1
        weights.append(ema.weight())
    assert weights[0] == 1
    for n in (2, 10, 100, 800):
        assert math.log(0.5) / math.log(1 - weights[n - 1]) == pytest.approx(0.05 * (n - 1))
    for n in (802, 2000):
        assert weights[n - 1] == pytest.approx(1 - decay)


@pytest.mark.parametrize("relative_std", LENGTHS)
def test_length_of_the_profile(relative_std):
    p = density(Profile(7.0, exponent(relative_std)))
    total, mean, square = (quad(lambda tau, k=k: tau**k * p(tau), 0, 7, epsabs=1e-12)[0] for k in range(3))
    assert total == pytest.approx(1)
    assert (square - mean**2) ** 0.5 / 7 == pytest.approx(relative_std, rel=1e-6)


@pytest.mark.parametrize("relative_std", [0, -0.1, 0.29, float("nan"), "0.1", None])
def test_lengths_that_no_profile_has(relative_std):
    with pytest.raises(ValueError, match=r"relative_std = .* at most 0\.2887"):
        PowerEMA(nn.BatchNorm1d(2), relative_std)


@pytest.mark.parametrize("relative_std", LENGTHS)
def test_power_average_is_the_weighted_sum_of_the_trajectory(relative_std):
    module, path = nn.BatchNorm1d(6), trajectory()
    ema = PowerEMA(module, relative_std)

    def check(n):
        if n in (1, 2, 3, 50, STEPS):
            expected = power_sum(path[:n], relative_std)
            found = weights_of(ema.module_state(module))
            assert (found - expected).abs().max() < 1e-6 * expected.abs().max()

    walk(module, [ema], path, check)
    assert ema.updates == STEPS


def test_first_update_copies_the_parameters():
    module = nn.BatchNorm1d(6)
    ema = PowerEMA(module, 0.05)
    walk(module, [ema], trajectory()[:1])
    assert same(ema.module_state(module), module.state_dict())


def test_inner_products_are_the_integrals():
    profiles = [Profile(t, exponent(std)) for t in (2.0, 3.0, 5.0) for std in (0.03, 0.1, MAX_RELATIVE_STD)]
    exact = [
        [quad(lambda tau: density(p)(tau) * density(q)(tau), 0, min(p.t, q.t), epsabs=1e-12)[0] for q in profiles]  # noqa: B023
        for p in profiles
    ]
    np.testing.assert_allclose(inner_products(profiles, profiles), exact, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(inner_products(profiles[:2], profiles), exact[:2], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("wanted", [0.03, 0.07, 0.2])
def test_nearest_combination(wanted):
    """Against the least-squares problem of sampled profiles, the last weight eliminated by the sum of one."""
    held = [Profile(t, exponent(std)) for t in (2.0, 3.0, 4.0, 5.0) for std in (0.05, 0.1)]
    target = Profile(5.0, exponent(wanted))
    weights, error = combination(held, target)
    tau = (np.arange(50_000) + 0.5) / 10_000
    columns, goal = np.stack([density(p)(tau) for p in held], 1), density(target)(tau)
    reduced = np.linalg.lstsq(columns[:, :-1] - columns[:, -1:], goal - columns[:, -1])[0]
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(weights[:-1], reduced, rtol=1e-4)
    found = np.linalg.norm(columns @ weights - goal) / np.linalg.norm(goal)
    assert error == pytest.approx(found, rel=1e-4)


def test_several_at_once_equal_each_alone():
    module, path = nn.BatchNorm1d(6), trajectory(60)
    together = Averages(module, 0.8, (0.5, 0.7), (0.05, 0.1))
    alone = {"0.5": EMA(module, 0.5), "0.7": EMA(module, 0.7),
             "power-0.05": PowerEMA(module, 0.05), "power-0.1": PowerEMA(module, 0.1)}  # fmt: skip
    main = EMA(module, 0.8)
    walk(module, [together, main, *alone.values()], path)
    assert together.extra.keys() == alone.keys()
    assert same(together.module_state(module), main.module_state(module))
    for name, average in alone.items():
        assert same(together.extra[name].module_state(module), average.module_state(module))
        assert not same(average.module_state(module), main.module_state(module))


def test_continuing_equals_never_stopping(tmp_path):
    path = trajectory(40)

    def start():
        module = nn.BatchNorm1d(6)
        return module, Averages(module, 0.99, (0.9,), (0.05, 0.1))

    straight, stopped, resumed = start(), start(), start()
    walk(straight[0], straight[1:], path)
    walk(stopped[0], stopped[1:], path[:25])
    torch.save(stopped[1].state_dict(), tmp_path / "state.pt")
    resumed[1].load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    walk(resumed[0], resumed[1:], path[25:])
    assert resumed[1].model_average.updates == 40
    for one, other in zip((straight[1].model_average, *straight[1].extra.values()),
                          (resumed[1].model_average, *resumed[1].extra.values()), strict=True):  # fmt: skip
        assert one.updates == other.updates
        assert same(one.average, other.average)


def test_an_average_added_later_goes_on_from_the_main_one():
    module, path = nn.BatchNorm1d(6), trajectory(40)
    before, after = Averages(module, 0.9), Averages(module, 0.9, (), (0.1,))
    walk(module, [before], path[:30])
    with pytest.warns(UserWarning, match=r"power-0\.1 is not in the checkpoint of step 30"):
        after.load_state_dict(before.state_dict())
    power = after.powers["power-0.1"]
    assert power.updates == 30
    assert same(power.average, before.model_average.average)
    assert power.average["weight"].data_ptr() != after.model_average.average["weight"].data_ptr()
    old = {name: value for name, value in before.state_dict().items() if name != "further"}
    Averages(module, 0.9).load_state_dict(old)


@pytest.mark.parametrize(("arguments", "words"), [
    ((1.0,), "^decay = 1.0: needs"), ((0.9, (1.5,)), "^decay = 1.5: needs"),
    ((0.9, ("a",)), "^decay = 'a': needs"), ((0.9, (), (0.5,)), "relative_std = 0.5: needs"),
])  # fmt: skip
def test_refused_averages(arguments, words):
    with pytest.raises(ValueError, match=words):
        Averages(nn.BatchNorm1d(2), *arguments)


@pytest.fixture
def kind(monkeypatch):
    """A kind of model file whose model is a BatchNorm1d of the spec's size."""
    monkeypatch.setitem(BUILDERS, "norm", lambda spec: nn.BatchNorm1d(spec["size"]))
    return "norm"


@pytest.fixture
def run(tmp_path, kind):
    """A folder of ten snapshots of two lengths, directly tracked averages of others, and the module at the end."""
    module = nn.BatchNorm1d(6)
    averages = Averages(module, 0.99, (0.9,), (0.05, 0.1))
    direct = {std: PowerEMA(module, std) for std in (0.03, 0.07, 0.15)}

    def save(n):
        if n % (STEPS // 10) == 0:
            save_averages(tmp_path, kind, {"size": 6}, averages, module)

    walk(module, [averages, *direct.values()], trajectory(), save)
    return tmp_path, module, averages, direct


@pytest.mark.parametrize(("relative_std", "bound"), [(0.07, 1e-3), (0.15, 2e-3), (0.03, 1e-2)])
def test_a_length_that_was_not_tracked_is_rebuilt(run, kind, relative_std, bound):
    """The deviation from the directly tracked average, relative to the trajectory's spread, is below the bound, and a
    third at most of that of the lengths that were kept."""
    folder, module, _, direct = run
    snapshots = find_snapshots(folder)
    expected = weights_of(direct[relative_std].module_state(module))
    state = reconstruct(snapshots, relative_std, kind=kind)
    found = weights_of(state)
    spread = trajectory().std(0)
    deviation = ((found - expected) / spread).square().mean().sqrt()
    assert deviation < bound
    for snapshot in snapshots[-2:]:
        tracked = weights_of(load_model(snapshot.path, kind).state_dict())
        assert ((tracked - expected) / spread).square().mean().sqrt() > 3 * deviation
    assert (state["running_mean"] == STEPS).all(), "buffers are copied"
    assert state["num_batches_tracked"] == STEPS


@pytest.mark.parametrize("step", [STEPS, STEPS // 2])
def test_a_tracked_length_comes_back(run, kind, step):
    snapshots = find_snapshots(run[0])
    for length in (0.05, 0.1):
        held = load_model(run[0] / f"power-{length}-{step:08d}.safetensors", kind).state_dict()
        state = reconstruct(snapshots, length, step, kind)
        assert state.keys() == held.keys()
        for name, value in held.items():
            torch.testing.assert_close(state[name], value, rtol=1e-6, atol=0)


def test_foretold_error_is_that_of_white_noise():
    """Of a path of independent noise, the rebuilt average deviates by the foretold share of the average's noise."""
    steps, count = 2000, 4000
    held = [Profile(t, exponent(std)) for t in range(200, steps + 1, 200) for std in (0.05, 0.1)]
    wanted = Profile(steps, exponent(0.2))
    weights, error = combination(held, wanted)

    def row(profile):
        edges = np.minimum(np.arange(steps + 1) / profile.t, 1)
        return np.diff(edges ** (profile.gamma + 1))

    noise = np.random.default_rng(0).standard_normal((steps, count))
    expected = row(wanted) @ noise
    deviation = weights @ np.stack([row(p) for p in held]) @ noise - expected
    assert deviation.std() / expected.std() == pytest.approx(error, rel=0.05)


def test_files(run, kind):
    folder, module, averages, _ = run
    names = {path.name for path in folder.iterdir()}
    power = {f"power-{std}-{n:08d}.safetensors" for std in (0.05, 0.1) for n in range(50, STEPS + 1, 50)}
    assert names == power | {"0.9.safetensors"}
    assert same(load_model(folder / "0.9.safetensors", kind).state_dict(), averages.decays["0.9"].module_state(module))
    newest = folder / f"power-0.1-{STEPS:08d}.safetensors"
    assert same(load_model(newest, kind).state_dict(), averages.powers["power-0.1"].module_state(module))
    assert stored_spec(newest) == {"size": 6}
    for other in ("power-x-00000001.safetensors", "power-0.1.safetensors", "rebuilt-0.1-00000001.safetensors"):
        shutil.copy(newest, folder / other)
    assert {snapshot.path.name for snapshot in find_snapshots(folder)} == power
    assert [snapshot.step for snapshot in find_snapshots(folder)[-2:]] == [STEPS, STEPS]


def test_snapshots_stay_evenly_spread_and_few(tmp_path, kind):
    module = nn.BatchNorm1d(2)
    averages = Averages(module, 0.9, (), (0.05, 1e-5))
    for _ in range(4 * MAX_SNAPSHOTS):
        averages.update(module)
        save_averages(tmp_path, kind, {"size": 2}, averages, module)
    for length in (0.05, 1e-5):
        steps = [snapshot.step for snapshot in find_snapshots(tmp_path) if snapshot.relative_std == length]
        assert len(steps) == MAX_SNAPSHOTS
        assert steps[-1] == 4 * MAX_SNAPSHOTS
        assert max(np.diff(steps)) <= 8
    averages.model_average.updates = averages.powers["power-0.05"].updates = averages.powers["power-1e-05"].updates = 50
    save_averages(tmp_path, kind, {"size": 2}, averages, module)
    left = find_snapshots(tmp_path)
    assert {snapshot.step for snapshot in left[-2:]} == {50}, "what is done again starts anew"
    assert len(left) > 20


def test_what_cannot_be_rebuilt_is_refused(run, kind):
    folder, *_ = run
    snapshots = find_snapshots(folder)
    with pytest.raises(ValueError, match=r"relative_std = 0\.01 at step 500 .* lengths? .*nearer"):
        reconstruct(snapshots, 0.01, kind=kind)
    with pytest.raises(ValueError, match="or for step 250, which has snapshots"):
        solve(snapshots, 0.05, 260)
    for step in (0, STEPS + 1):
        with pytest.raises(ValueError, match=f"step = {step}: needs one from 1 to {STEPS}"):
            solve(snapshots, 0.05, step)
    with pytest.raises(ValueError, match="no snapshots"):
        reconstruct([], 0.05, kind=kind)
    with pytest.warns(UserWarning, match=r"relative_std = 0\.25: the profile of the rebuilt average is \d+% off"):
        reconstruct(snapshots, 0.25, kind=kind)


def test_damaged_and_foreign_snapshots_are_named(run, kind):
    folder, *_ = run
    snapshots = find_snapshots(folder)
    path = snapshots[3].path
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        reconstruct(snapshots, 0.07, kind=kind)
    module = nn.BatchNorm1d(1)
    save_averages(folder / "other", kind, {"size": 1}, Averages(module, 0.9, (0.5,)), module)
    shutil.copy(folder / "other" / "0.5.safetensors", path)
    with pytest.raises(ValueError, match=f"{path.name} is of another network"):
        reconstruct(snapshots, 0.07, kind=kind)


@pytest.fixture
def noisy_run(tmp_path):
    """A run folder of a linear denoiser whose network's last layer jumps from one side of zero, its best value by far,
    to the other: an average of it is the layer times a factor, the smaller the longer the average."""
    small = ["--config.model.network.width=8", "--config.model.network.layers=1"]
    run = Run(tmp_path, resolve(read_config(config_path("points")), small), torch.device("cpu"))
    data, _ = run.data()
    spec = denoiser_spec(run.config, data)
    model = build_denoiser(spec)
    for parameter in model.network.head.parameters():
        parameter.data.normal_(std=10)
    averages = Averages(model, 0.5, (0.6,), (0.05, 0.1))
    for n in range(1, 201):
        for parameter in model.network.head.parameters():
            parameter.data.neg_()
        averages.update(model)
        if n % 20 == 0:
            save_averages(tmp_path / "ema", "denoiser", spec, averages, model)
    save_model(run.model_file, "denoiser", spec, averages.module_state(model))
    return run


def test_the_best_length_is_found_without_training(noisy_run, capsys):
    """The longest average is nearest to zero, hence has the lowest loss."""
    run = noisy_run
    result = reconstruct_ema(run, relative_std="0.07,0.03", at_step=None)
    names = {length: f"ema/rebuilt-{length}-00000200.safetensors" for length in (0.03, 0.07)}
    losses = result["held_out_loss"]
    assert losses.keys() == {"model.safetensors", "ema/0.6.safetensors", *names.values()}
    assert losses["model.safetensors"] > losses["ema/0.6.safetensors"] > losses[names[0.03]] > losses[names[0.07]]
    assert (result["best"], result["step"], result["snapshots"]) == (names[0.07], 200, 20)
    assert f"best: {names[0.07]}, which --weights {names[0.07]} selects" in capsys.readouterr().out
    data, held_out = run.data()
    rebuilt = load_model(run.folder / names[0.07])
    settings = run.config.training
    validation = Validation(
        held_out, data, rebuilt.sde, settings.optimization.times, settings.loss_weighting, run.device
    )
    assert losses[names[0.07]] == validation.losses(rebuilt)["loss"]
    snapshots = find_snapshots(run.folder / "ema")
    assert result["profile_error"]["0.07"] == solve(snapshots, 0.07, 200)[1]
    # Of lengths that are warned of none is recommended, however low their losses are.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("score_sde.modes.ema.DOUBTFUL_ERROR", 0.0)
        assert reconstruct_ema(run, relative_std="0.07,0.03")["best"] == "ema/0.6.safetensors"
    for name in names.values():
        (run.folder / name).unlink()
    earlier = reconstruct_ema(run, relative_std="0.05", at_step=180)
    assert earlier["best"] == "ema/rebuilt-0.05-00000180.safetensors"


@pytest.mark.parametrize(("relative_std", "at_step", "words"), [
    ("0.05,x", None, "--relative_std=0.05,x: needs numbers"), ("0.05,0.4", None, "relative_std = 0.4: needs"),
    ("0.05,0.001", None, "relative_std = 0.001 at step 200 cannot be rebuilt"), ("0.05", 201, "from 1 to 200"),
])  # fmt: skip
def test_a_mistake_is_found_before_anything_is_written(noisy_run, relative_std, at_step, words):
    with pytest.raises(ValueError, match=words):
        reconstruct_ema(noisy_run, relative_std=relative_std, at_step=at_step)
    assert not list(noisy_run.folder.glob("ema/rebuilt-*"))


def test_a_run_without_snapshots_says_how_to_have_them(noisy_run):
    shutil.rmtree(noisy_run.folder / "ema")
    with pytest.raises(ValueError, match=r"train with --config\.training\.power_ema_stds=0\.05,0\.1"):
        reconstruct_ema(noisy_run, relative_std="0.05", at_step=None)
