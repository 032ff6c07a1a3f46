"""Folders of diffusers: its networks, wrapped, give its own numbers, and its pipelines the same pictures."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from samplers import SAMPLERS, UniPC, sample
from samplers.deis import ExponentialAdams
from score_sde.cli import main
from sde import Denoiser, Transform
from sde.checkpoint import load_model
from sde.guidance import Conditional
from sde.pretrained import load_pretrained, read_pretrained
from sde.process.coefficients import expand
from tests.oracles.foreign import fixture, relative

diffusers = pytest.importorskip("diffusers", reason="the extra diffusers is not installed")

UNET = {"sample_size": 8, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}  # fmt: skip


def randomised(network):
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


@pytest.fixture(scope="module")
def unet():
    return randomised(diffusers.UNet2DModel(**UNET))


def on_labels(model, labels):
    return model.sde.times[labels.long()]


def test_recorded_outputs():
    found = fixture("diffusers-ddpm-epsilon")
    model, x, steps = load_pretrained(found.folder), found.reference["x"], found.reference["t"]
    assert isinstance(model, Denoiser)
    with torch.no_grad():
        assert relative(model.network(x, steps.float()), found.reference["net"]) < 1e-5
        alpha, sigma = (expand(f(on_labels(model, steps)), x) for f in (model.sde.alpha, model.sde.sigma))
        denoised = (x - sigma * found.reference["net"]) / alpha
        assert relative(model(x, on_labels(model, steps)), denoised) < 1e-5


def test_recorded_samples():
    """Their schedulers on the recorded labels: Euler and DDIM are one method; DEIS ends at label 0 and denoises
    nothing; the noise levels of Karras lie between labels, of which the network is told the nearest."""
    found = fixture("diffusers-ddpm-epsilon")
    model, noise = load_pretrained(found.folder), found.reference["noise"]

    def gap(name, sampler, times=None, **options):
        times = on_labels(model, found.reference[f"{name}_timesteps"]) if times is None else times
        return relative(sample(model, sampler, noise, times, **options), found.reference[name])

    assert gap("ddim10", SAMPLERS["ddim"]()) < 1e-4
    assert gap("euler10", SAMPLERS["ddim"]()) < 1e-4
    assert gap("dpmpp2m10", SAMPLERS["dpmpp"]()) < 1e-4
    labels = torch.cat([found.reference["deis10_timesteps"], torch.zeros(1)])
    assert gap("deis10", ExponentialAdams(2, "noise"), on_labels(model, labels), denoise=False) < 1e-4
    assert gap("unipc10", UniPC(2, variant="bh2")) < 1e-4
    # Exact integrals differ from theirs (docs/samplers/unipc.md); in ten steps that is not much.
    assert 1e-4 < gap("unipc10", UniPC(2)) < 1e-2
    levels = model.sde.noise_levels
    ends = [level.item() ** (1 / 7) for level in (levels[-1], levels[0])]
    sigmas = torch.linspace(*ends, 10, dtype=torch.float64) ** 7
    model.noise_input = replace(model.noise_input, rounding="nearest")
    assert gap("dpmpp2m10_karras", SAMPLERS["dpmpp"](), model.sde.t_of_log_snr(-2 * sigmas.log())) < 1e-5


def test_recorded_samples_of_heun():
    """It was recorded with the scheduler's own betas, not those that the folder names."""
    found = fixture("diffusers-ddpm-epsilon")
    own = {"beta_start": 0.00085, "beta_end": 0.012}
    model = load_pretrained(found.folder)
    chain = replace(model.sde, **own)
    model = Denoiser(model.network, chain, "noise", noise_input=replace(model.noise_input, process=chain),
                     scaled_input=False)  # fmt: skip
    scheduler = diffusers.HeunDiscreteScheduler()
    assert {name: scheduler.config[name] for name in own} == own
    labels = torch.unique_consecutive(found.reference["heun10_timesteps"])
    start = chain.sigma(chain.times[-1]) * found.reference["noise"]
    drawn = sample(model, SAMPLERS["heun"](), start, on_labels(model, labels))
    assert relative(drawn, found.reference["heun10"]) < 1e-4


@pytest.mark.parametrize("kind", ["DDPM", "DDIM"])
@pytest.mark.parametrize("options", [{}, {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"},
                                     {"prediction_type": "sample", "beta_schedule": "scaled_linear"}])  # fmt: skip
def test_a_pipeline_and_its_import_draw_the_same(kind, options, unet, tmp_path):
    """The same pictures from the same noise: DDIM without noise of its own, and DDPM at every step of the chain with
    the noise that its generator draws, of which the last step takes none."""
    count = 20
    scheduler = getattr(diffusers, f"{kind}Scheduler")(num_train_timesteps=count, clip_sample=False, **options)
    pipeline = getattr(diffusers, f"{kind}Pipeline")(unet=unet, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path)
    model = load_pretrained(tmp_path)
    assert model.event_shape == (3, 8, 8)
    shape, ours, theirs = (2, 3, 8, 8), *(torch.Generator().manual_seed(1) for _ in range(2))
    wanted = pipeline(batch_size=2, generator=theirs, num_inference_steps=count, output_type="np").images
    times = on_labels(model, torch.arange(count - 1, -1, -1))
    start = torch.randn(shape, generator=ours)
    drawn = sample(model, SAMPLERS["ddim" if kind == "DDIM" else "ancestral"](), start, times,
                   lambda x: torch.randn(shape, generator=ours))  # fmt: skip
    pictures = (drawn / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(pictures, torch.from_numpy(wanted).permute(0, 3, 1, 2), rtol=0, atol=1e-4)
    assert ((pictures > 0) & (pictures < 1)).float().mean() > 0.1


def saved(folder, network, scheduler=None, **options):
    network.save_pretrained(folder / ("unet" if scheduler else "."), **options)
    if scheduler:
        scheduler.save_pretrained(folder / "scheduler")
    return folder


FACTS = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
         "prediction_type": "epsilon", "trained_betas": None, "rescale_betas_zero_snr": False}  # fmt: skip


def test_every_form_of_the_weights(unet, tmp_path):
    wanted = unet.state_dict()
    forms = {
        "safetensors": {}, "bin": {"safe_serialization": False}, "fp16": {"variant": "fp16"},
        "sharded": {"max_shard_size": "100KB"},
    }  # fmt: skip
    for name, options in forms.items():
        network = diffusers.UNet2DModel(**UNET).half() if name == "fp16" else unet
        if name == "fp16":
            network.load_state_dict(wanted)
        saved(tmp_path / name, network, **options)
        state = load_pretrained(tmp_path / name, facts=FACTS).network.model.state_dict()
        for key, value in state.items():
            expected = wanted[key].half().float() if name == "fp16" else wanted[key]
            assert torch.equal(value, expected), (name, key)
    assert len([*(tmp_path / "sharded").glob("*.safetensors")]) > 1


def test_a_model_by_itself_needs_facts(unet, tmp_path):
    saved(tmp_path, unet)
    with pytest.raises(ValueError, match=r"^facts: .* are needed"):
        load_pretrained(tmp_path)
    assert read_pretrained(tmp_path, facts=FACTS).sde.steps == 1000
    with pytest.raises(ValueError, match=r"facts: prediction_type = 'flow'|prediction_type = 'flow': needs one of"):
        load_pretrained(tmp_path, facts=FACTS | {"prediction_type": "flow"})


def test_old_names_of_attention(unet, tmp_path):
    from safetensors.torch import load_file, save_file

    saved(tmp_path, unet)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, value in load_file(path).items():
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        state[name] = value
    assert any(".proj_attn." in name for name in state)
    save_file(state, path)
    found = load_pretrained(tmp_path, facts=FACTS).network.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in unet.state_dict().items())


def test_classes_of_a_unet(tmp_path):
    network = randomised(diffusers.UNet2DModel(**UNET, num_class_embeds=4))
    saved(tmp_path, network, diffusers.DDPMScheduler())
    model = load_pretrained(tmp_path)
    x, t, labels = torch.randn(3, 3, 8, 8), torch.full((3,), 0.5), torch.tensor([0, 3, 1])
    with torch.no_grad():
        wanted = network(x, torch.full((3,), 499.5), class_labels=labels).sample
        torch.testing.assert_close(model.network(x, torch.full((3,), 499.5), {"labels": labels}), wanted)
        assert model(x, t, labels).shape == x.shape
        for null in (None, torch.tensor([0, -1, 1])):
            with pytest.raises(ValueError, match="diffusers' UNet2DModel has no null condition: give labels"):
                model(x, t, null)
    assert not model.network.has_null
    assert not model.null_trained


def test_a_dit(tmp_path):
    network = randomised(diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        patch_size=2, num_embeds_ada_norm=5))  # fmt: skip
    network.save_pretrained(tmp_path / "transformer")
    diffusers.DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    model = load_pretrained(tmp_path)
    x, labels = torch.randn(3, 4, 8, 8), torch.tensor([0, 4, -1])
    with torch.no_grad():
        wanted = network(x, torch.full((3,), 7), class_labels=labels.where(labels >= 0, torch.tensor(5))).sample
        found = model.network(x, torch.full((3,), 7.0), {"labels": labels})
    torch.testing.assert_close(found, wanted[:, :4])
    assert model.null_trained
    assert model.num_classes == 5


def test_a_network_of_a_sequence(tmp_path):
    network = randomised(diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        norm_num_groups=8, cross_attention_dim=12, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")))  # fmt: skip
    saved(tmp_path, network, diffusers.DDPMScheduler(beta_schedule="scaled_linear"))
    model = load_pretrained(tmp_path)
    assert dict(model.conditions) == {"sequence": (77, 12)}
    x, tokens = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 12)
    with torch.no_grad():
        wanted = network(x, torch.full((2,), 300.0), encoder_hidden_states=tokens).sample
        torch.testing.assert_close(model.network(x, torch.full((2,), 300.0), {"sequence": tokens}), wanted)
        assert Conditional(model, {"sequence": tokens})(x, torch.full((2,), 0.3)).shape == x.shape


SCHEDULERS = {
    "betas": {"trained_betas": [0.01, 0.02, 0.03, 0.2], "num_train_timesteps": 4},
    "zero terminal": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid", "beta_start": 1e-3},
    "fewer": {"num_train_timesteps": 100, "beta_end": 0.1},
}


@pytest.mark.parametrize("case", SCHEDULERS)
def test_chains_are_those_of_the_scheduler(case, unet, tmp_path):
    scheduler = diffusers.DDPMScheduler(**SCHEDULERS[case])
    saved(tmp_path, unet, scheduler)
    chain = read_pretrained(tmp_path).sde
    abar = scheduler.alphas_cumprod.double()
    alpha = chain.alpha(chain.times)
    torch.testing.assert_close(alpha**2, abar, rtol=2e-5, atol=1e-7)
    assert chain.open_end == (case == "zero terminal")


def test_what_is_refused(unet, tmp_path):
    saved(tmp_path / "own", unet, diffusers.DDPMScheduler())
    config = json.loads((tmp_path / "own/scheduler/scheduler_config.json").read_text())
    (tmp_path / "own/scheduler/scheduler_config.json").write_text(json.dumps(config | {"beta_schedule": "laplace"}))
    with pytest.raises(ValueError, match="beta_schedule = 'laplace' has no process here: linear, "):
        load_pretrained(tmp_path / "own")
    shutil.rmtree(tmp_path / "own/scheduler")
    (tmp_path / "own/unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no weights: needs"):
        load_pretrained(tmp_path / "own", facts=FACTS)


def test_a_run_folder_of_it(unet, capsys, tmp_path):
    saved(tmp_path / "theirs", unet, diffusers.DDPMScheduler())
    run = tmp_path / "run"
    assert main.main(["--mode", "import", "--pretrained", str(tmp_path / "theirs"), "--workdir", str(run)]) == 0
    assert main.main(["--mode", "sample", "--workdir", str(run), "--num_samples=2", "--steps=2"]) == 0
    model = load_model(run / "model.safetensors")
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.network(x, torch.full((2,), 3.0)), unet(x, torch.full((2,), 3.0)).sample)


def test_a_network_of_latents_of_three_channels(unet, tmp_path):
    """The transform of pixels is none of theirs, whether the autoencoder is there or only named."""
    saved(tmp_path, unet, diffusers.DDPMScheduler())
    for listed, there in (([None, None], Transform.of_values(256)), (["diffusers", "VQModel"], Transform())):
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "LDMPipeline", "vqvae": listed}))
        assert read_pretrained(tmp_path).transform == there
    (tmp_path / "model_index.json").unlink()
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/config.json").write_text('{"_class_name": "AutoencoderKL"}')
    assert read_pretrained(tmp_path).transform == Transform()


def test_training_drops_no_classes_of_a_unet(capsys, tmp_path):
    network = randomised(diffusers.UNet2DModel(**UNET, num_class_embeds=4))
    saved(tmp_path / "theirs", network, diffusers.DDPMScheduler())
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=np.arange(40) % 4)
    assert main.main(["--mode", "import", "--pretrained", str(tmp_path / "theirs"), "--workdir",
                      str(tmp_path / "run"), f"--config.data.root={tmp_path / 'data.npz'}"]) == 0  # fmt: skip
    train = ["--mode", "train", "--init", str(tmp_path / "run"), "--workdir", str(tmp_path / "new"),
             "--config.training.batch_size=8"]  # fmt: skip
    assert main.main([*train, "--config.training.cond_dropout=0.2"]) == 2
    assert "config.training.cond_dropout = 0.2: this network has no null condition" in capsys.readouterr().err


INDEX = "diffusion_pytorch_model.safetensors.index.json"


@pytest.mark.parametrize("text", ["[" * 50_000, "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}',
                                  '{"weight_map": {"a": ".."}}', '{"weight_map": {"a": "../other.safetensors"}}',
                                  '{"weight_map": {}}'])  # fmt: skip
def test_an_index_that_is_damaged(text, unet, tmp_path):
    saved(tmp_path, unet, diffusers.DDPMScheduler())
    next(tmp_path.rglob("*.safetensors")).rename(tmp_path / "other.safetensors")
    (tmp_path / "unet" / INDEX).write_text(text)
    with pytest.raises(ValueError, match=r"index\.json (has no weight_map|was not read)"):
        load_pretrained(tmp_path)
