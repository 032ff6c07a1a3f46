"""Models of flow matching of diffusers: the straight path, told 1000 t, and its schedulers' own samples."""

import json

import pytest
import torch

from samplers import SAMPLERS, sample
from samplers.grid import make_grid
from score_sde.cli import main
from sde import FlowSDE
from sde.pretrained import load_pretrained, read_pretrained
from sde.pretrained.exports import EXPORTS
from sde.process.coefficients import expand

diffusers = pytest.importorskip("diffusers", reason="the extra diffusers is not installed")

UNET = {"sample_size": 8, "block_out_channels": (16,), "layers_per_block": 1, "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}  # fmt: skip


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(**UNET)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


def imported(folder, network, kind, **options):
    scheduler = getattr(diffusers, kind)(**options)
    network.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    return load_pretrained(folder), scheduler


def shifted(u, shift):
    return shift * u / (1 + (shift - 1) * u)


EULER, HEUN = "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"


@pytest.mark.parametrize(("options", "told"), [
    ({}, {}), ({"shift": 3.0}, {}), ({"use_dynamic_shifting": True}, {"mu": 0.8}), ({"shift_terminal": 0.02}, {}),
])  # fmt: skip
def test_euler_is_that_of_their_scheduler(options, told, unet, tmp_path):
    """On its own list of noise levels, from t = 1 to its step to 0, which is our last call."""
    model, scheduler = imported(tmp_path, unet, EULER, **options)
    scheduler.set_timesteps(7, **told)
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    x = noise
    for t in scheduler.timesteps:
        with torch.no_grad():
            x = scheduler.step(unet(x, t.expand(2)).sample, t, x).prev_sample
    assert scheduler.sigmas[0] == 1
    drawn = sample(model, SAMPLERS["euler"](), noise, scheduler.sigmas[:-1].double())
    torch.testing.assert_close(drawn, x, rtol=1e-5, atol=2e-6 * x.abs().max().item())


def test_their_default_list_shifts_the_last_level_twice(unet, tmp_path):
    """Even steps between shifted ends are shifted again; ``flow:SHIFT`` ends where the scheduler's levels do."""
    model, scheduler = imported(tmp_path, unet, EULER, shift=3.0)
    scheduler.set_timesteps(7)
    once = shifted(0.001, 3.0)
    assert scheduler.sigmas[-2].item() == pytest.approx(shifted(once, 3.0))
    assert model.sde.t_min == pytest.approx(once)
    times = make_grid(model.sde, "flow:3", 7)
    torch.testing.assert_close(times, shifted(torch.linspace(1, 0.001, 8, dtype=torch.float64), 3.0))


@pytest.mark.parametrize(("kind", "options"), [
    (EULER, {}), (EULER, {"shift": 3.0, "num_train_timesteps": 500}), (HEUN, {"shift": 2.0}),
    ("FlowMatchLCMScheduler", {"shift": 3.0}),
])  # fmt: skip
def test_levels_and_the_prediction(kind, options, unet, tmp_path):
    """Their sigmas are our times, their output is the flow, and the network is told their timesteps."""
    model, scheduler = imported(tmp_path, unet, kind, **options)
    found = read_pretrained(tmp_path)
    torch.testing.assert_close(found.levels.float(), scheduler.sigmas, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.noise_input.scale * found.levels.float(), scheduler.timesteps, rtol=1e-6, atol=0)
    assert (model.sde, model.parametrization) == (FlowSDE(t_min=found.levels[-1].item()), "flow")
    assert found.origin["grid"] == f"flow:{options.get('shift', 1):g}"
    x, t = torch.randn(2, 3, 8, 8), found.levels[[100, 300]]
    with torch.no_grad():
        output = unet(x, found.noise_input.scale * t.float()).sample
        torch.testing.assert_close(model(x, t), x - expand(t.float(), x) * output, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.velocity(x, t), output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
@pytest.mark.parametrize("predicted", ["flow_prediction", "sample"])
def test_other_schedulers_with_flow_sigmas(kind, predicted, unet, tmp_path):
    options = {"prediction_type": predicted, "use_flow_sigmas": True, "flow_shift": 3.0}
    model, scheduler = imported(tmp_path, unet, kind, **options)
    assert isinstance(model.sde, FlowSDE)
    assert model.sde.t_min == pytest.approx(shifted(0.001, 3.0))
    scheduler.set_timesteps(5)
    scheduler._init_step_index(scheduler.timesteps[0])
    scheduler._step_index = 2
    x, t = torch.randn(2, 3, 8, 8), scheduler.sigmas[2].double()
    with torch.no_grad():
        output = unet(x, 1000 * t.float().expand(2)).sample
        theirs = scheduler.convert_model_output(output, sample=x)
        torch.testing.assert_close(model(x, t), theirs, rtol=1e-5, atol=1e-5)


def test_a_shift_by_the_size_is_named(unet, tmp_path, capsys):
    imported(tmp_path / "theirs", unet, EULER, use_dynamic_shifting=True, shift=3.0)
    run = ["--mode", "import", "--pretrained", str(tmp_path / "theirs"), "--workdir", str(tmp_path / "run")]
    assert main.main(run) == 0
    assert "its own grid flow:SHIFT, where SHIFT follows from the size of the items" in capsys.readouterr().out
    sampling = ["--mode", "sample", "--workdir", str(tmp_path / "run"), "--num_samples=2", "--sampler=euler"]
    assert main.main([*sampling, "--steps=3", "--grid=flow:2.5"]) == 0


@pytest.mark.parametrize(("kind", "options", "words"), [
    (EULER, {"invert_sigmas": True}, "invert_sigmas = True: the network of this FlowMatchEuler.* runs the other way"),
    ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction"}, "with use_flow_sigmas = False"),
    ("DPMSolverMultistepScheduler", {"prediction_type": "epsilon", "use_flow_sigmas": True},
     "prediction_type = 'epsilon': needs one of flow_prediction, sample"),
    ("SCMScheduler", {}, r"the scheduler SCMScheduler has no betas, and no process here: .*FlowMatchEuler"),
])  # fmt: skip
def test_what_is_refused(kind, options, words, unet, tmp_path):
    with pytest.raises(ValueError, match=words):
        imported(tmp_path, unet, kind, **options)


def test_a_model_by_itself(unet, tmp_path):
    unet.save_pretrained(tmp_path)
    facts = {"_class_name": EULER, "num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": False,
             "invert_sigmas": False}  # fmt: skip
    assert read_pretrained(tmp_path, facts=facts).sde.t_min == pytest.approx(shifted(0.001, 3.0))
    with pytest.raises(ValueError, match="facts: shift is needed, of a scheduler of flow matching"):
        read_pretrained(tmp_path, facts={name: value for name, value in facts.items() if name != "shift"})


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_export_and_back(shift, unet, tmp_path):
    model, _ = imported(tmp_path / "theirs", unet, EULER, shift=shift)
    EXPORTS["diffusers"](model, tmp_path / "ours")
    config = json.loads((tmp_path / "ours/scheduler/scheduler_config.json").read_text())
    assert config["_class_name"] == EULER
    assert (config["shift"], config["num_train_timesteps"]) == (pytest.approx(shift), 1000)
    again = load_pretrained(tmp_path / "ours")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 1.0])
    with torch.no_grad():
        assert torch.equal(again(x, t), model(x, t))
