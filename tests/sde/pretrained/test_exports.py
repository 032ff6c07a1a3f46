"""Models in the formats of other libraries: back here they are the same, and what does not fit is refused."""

import json

import pytest
import torch

from sde import VESDE, VPSDE, ChainSDE, Denoiser, FlowSDE, NoiseInput, SubVPSDE, Transform
from sde.networks import NETWORKS
from sde.pretrained import load_pretrained
from sde.pretrained.exports import EXPORTS
from sde.pretrained.foreign import pixels
from tests.batteries.networks import randomise

NCSNPP = {"channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "attention_resolutions": (4,),
          "frequency_unit": "cycle"}  # fmt: skip
POSITIONAL = NCSNPP | {"embedding_type": "positional", "features_mult": 1}
DDPM = POSITIONAL | {"attention_resolutions": (), "resampling": "conv", "resample_blocks": False, "skip_rescale": False,
                     "progressive_input": "none", "group_channels": 1, "channels": 32}  # fmt: skip
CHAIN = ChainSDE()
STEPS = {"noise_input": NoiseInput("time", 999.0), "scaled_input": False}
LOG = {"noise_input": NoiseInput("log_noise_level", 1.0), "scaled_input": False}


def model(options, sde, parametrization, transform=None, shape=(3, 8, 8), **inputs):
    torch.manual_seed(0)
    network = randomise(NETWORKS["ncsnpp"](shape, **options)).float()
    return Denoiser(network, sde, parametrization, 1.0, transform or pixels(), True, shape, **inputs).eval()


SCORE_SDE = {
    "ncsn++ on ve": (NCSNPP | {"centered": False, "scale_by_sigma": True, "log_sigma": (1.0, 0.0)}, VESDE(0.02, 40.0),
                     "score", pixels(0.0), LOG),
    "ddpm++ on vp": (POSITIONAL | {"resampling": "conv", "progressive_input": "none"}, VPSDE(), "noise", None, STEPS),
    "with dequantized pixels": (POSITIONAL, SubVPSDE(), "noise", Transform.of_levels(256), STEPS),
    "pyramids": (POSITIONAL | {"progressive_input": "skip", "progressive_output": "skip"}, VPSDE(), "noise", None,
                 STEPS),
    "ddpm on a chain": (DDPM | {"attention_resolutions": (4,)}, CHAIN, "noise", None, STEPS),
}  # fmt: skip


@pytest.mark.parametrize("case", SCORE_SDE)
def test_score_sde_and_back(case, tmp_path):
    options, sde, parametrization, transform, inputs = SCORE_SDE[case]
    ours = model(options, sde, parametrization, transform, **inputs)
    files = EXPORTS["score_sde_pytorch"](ours, tmp_path / "out")
    assert [path.name for path in files] == ["checkpoint_1.pth", "config.json"]
    x, t = torch.randn(3, 3, 8, 8), torch.tensor([0.1, 0.5, 1.0])
    for weights in ("ema", "raw"):
        again = load_pretrained(files[0], weights=weights, facts=json.loads(files[1].read_text()))
        assert again.transform == ours.transform
        with torch.no_grad():
            torch.testing.assert_close(again(x, t), ours(x, t), rtol=1e-5, atol=1e-4)
    held = torch.load(files[0])
    trained = [name for name, value in ours.network.named_parameters() if value.requires_grad]
    # Of one tensor for q, k and v they have three.
    more = 2 * sum(".qkv." in name for name in trained)
    assert len(held["ema"]["shadow_params"]) == len(trained) + more


def refused(format, wanted, ours, folder):
    with pytest.raises(ValueError, match=wanted):
        EXPORTS[format](ours, folder / "out")
    assert not (folder / "out").exists()


def test_what_score_sde_cannot_express(tmp_path):
    def no(wanted, *arguments, **inputs):
        refused("score_sde_pytorch", wanted, model(*arguments, **inputs), tmp_path)

    no("score_sde's noise input .* is NoiseInput", POSITIONAL, VPSDE(), "noise", scaled_input=False)
    no("score_sde's scaled_input .* is False, this model's True", POSITIONAL, VPSDE(), "noise",
       noise_input=STEPS["noise_input"])  # fmt: skip
    no("score_sde's parametrization .* is noise, this model's v", POSITIONAL, VPSDE(), "v", **STEPS)
    no("score_sde's transform .* is Transform", POSITIONAL, VPSDE(), "noise", Transform((1.0,), (2.0,)), **STEPS)
    no("score_sde has the processes .* this one is ChainSDE", POSITIONAL, ChainSDE("cosine"), "noise", **STEPS)
    no("score_sde has the processes .* this one is VPSDE", POSITIONAL, VPSDE(schedule="cosine"), "noise", **STEPS)
    no("score_sde has no such network: the weights do not fit the facts: ", POSITIONAL | {"adaptive": True}, VPSDE(),
       "noise", **STEPS)  # fmt: skip
    no("images are square", POSITIONAL | {"attention_resolutions": (8,)}, VPSDE(), "noise", shape=(3, 8, 16), **STEPS)
    unet = Denoiser(NETWORKS["unet"]((3, 8, 8), None, channels=8, channel_mult=(1,)), VPSDE(), event_shape=(3, 8, 8))
    refused("score_sde_pytorch", "score_sde has the network ncsnpp, .* this one is UNet", unet, tmp_path)


CHAINS = {
    "linear": CHAIN,
    "cosine": ChainSDE("cosine", steps=50),
    "table": ChainSDE.of_betas(torch.linspace(0.01, 0.3, 20)),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("parametrization", ["noise", "v"])
def test_diffusers_and_back(name, parametrization, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    chain = CHAINS[name]
    inputs = {"noise_input": NoiseInput("time", chain.steps - 1.0), "scaled_input": False}
    ours = model(DDPM, chain, parametrization, shape=(3, 16, 16), **inputs)
    EXPORTS["diffusers"](ours, tmp_path)
    again = load_pretrained(tmp_path)
    x, t = torch.randn(3, 3, 16, 16), chain.times[[0, chain.steps // 2, -1]]
    with torch.no_grad():
        wanted = ours(x, t)
        torch.testing.assert_close(again(x, t), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
    # By the library itself: its network's output at the steps is that of ours.
    unet = diffusers.UNet2DModel.from_pretrained(tmp_path / "unet")
    scheduler = diffusers.DDPMScheduler.from_pretrained(tmp_path / "scheduler")
    steps = torch.tensor([0, chain.steps // 2, chain.steps - 1])
    with torch.no_grad():
        torch.testing.assert_close(unet(x, steps).sample, ours.network(x, steps.float()), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), chain.alpha(chain.times) ** 2, rtol=1e-4, atol=1e-6)


def test_what_diffusers_cannot_express(tmp_path):
    def no(wanted, *arguments, **inputs):
        refused("diffusers", wanted, model(*arguments, **inputs), tmp_path)

    no("diffusers has chains and flow matching, and this process is VPSDE", DDPM, VPSDE(), "noise", **STEPS)
    no("diffusers has the parametrizations noise, denoised, v there, this model edm", DDPM, CHAIN, "edm", **STEPS)
    no("diffusers has the parametrizations flow there, this model v", DDPM, FlowSDE(), "v", **STEPS)
    no("told a number of steps times t, this one 0.25 log_noise_level", DDPM, FlowSDE(), "flow", scaled_input=False)
    no("see x as it is", DDPM, CHAIN, "noise", noise_input=STEPS["noise_input"])
    no("are told the step of the chain, this one 0.25 log_noise_level", DDPM, CHAIN, "noise", scaled_input=False)
    no("UNet2DModel has attention_resolutions = ", DDPM | {"attention_resolutions": (4,)}, CHAIN, "noise", **STEPS)
