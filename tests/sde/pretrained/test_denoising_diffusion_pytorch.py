"""Files of denoising-diffusion-pytorch: the original's numbers, the published key lists, and files of our networks."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sde import Denoiser
from sde.networks.linear_attention_unet import LinearAttentionUNet
from sde.pretrained import load_pretrained, read_pretrained
from sde.pretrained.contents import Contents
from sde.pretrained.denoising_diffusion_pytorch import source
from sde.pretrained.denoising_diffusion_pytorch.names import unet_names
from sde.pretrained.facts import Facts
from sde.pretrained.foreign import empty_network
from tests.oracles.foreign import fixture, key_list, key_lists, relative

SIZE = {"image_size": 16}


def test_the_originals_networks_and_posterior_mean():
    found = fixture("denoising-diffusion-pytorch")
    about = {name: found.about[name] for name in ("objective", "schedule")} | found.about["kwargs"]
    x, steps = found.reference["x"], found.reference["t"]
    for facts in (SIZE, about, SIZE | about):
        for weights, key in (("raw", "net"), ("ema", "net_ema")):
            model = load_pretrained(found.folder / "model-1.pt", weights=weights, facts=facts)
            assert isinstance(model, Denoiser)
            with torch.no_grad():
                assert relative(model.network(x, steps.float()), found.reference[key]) < 1e-5
                denoised = model(x, model.sde.times[steps]).clamp(-1, 1)
            if weights == "raw":
                assert relative(denoised, found.reference["pred_xstart"]) < 1e-5
            assert torch.equal(model.coefficients(model.sde.times[steps])[-1].float(), steps.float())


def tables(alpha2):
    """What a GaussianDiffusion keeps of its chain, in float32."""
    before = np.concatenate([[1.0], alpha2[:-1]])
    found = {"betas": 1 - alpha2 / before, "alphas_cumprod": alpha2, "sqrt_alphas_cumprod": alpha2**0.5,
             "sqrt_one_minus_alphas_cumprod": (1 - alpha2) ** 0.5}  # fmt: skip
    return {name: torch.from_numpy(value).float() for name, value in found.items()}


def cosine(steps):
    values = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.clip(1 - values[1:] / values[:-1], 0, 0.999))


def linear(steps):
    return np.cumprod(1 - np.linspace(1e-4, 0.02, steps) * 1000 / steps)


def sigmoid(steps):
    """From -3 to 3, with ends that are rounded to float32."""
    ends = [torch.tensor(end).sigmoid().numpy() for end in (-3.0, 3.0)]
    values = (ends[1] - 1 / (1 + np.exp(3 - 6 * np.arange(steps + 1) / steps))) / (ends[1] - ends[0])
    values = values / values[0]
    return np.cumprod(1 - np.clip(1 - values[1:] / values[:-1], 0, 0.999))


ALPHAS = {"cosine": cosine, "linear": linear, "sigmoid": sigmoid}


@pytest.mark.parametrize("name", key_lists("denoising-diffusion-pytorch"))
def test_published_key_lists(name):
    listed = key_list(name)
    config = listed["config"]
    held = {key: torch.empty(shape, device="meta") for key, shape, _ in listed["tensors"]}
    assert [key for key in held if not key.startswith("model.")] == listed["buffers"]
    held |= tables(sigmoid(1000))
    del held["loss_weight"]
    contents = Contents(Path("model-1.pt"), "torch", {"model": held})
    assert source.recognizes(contents)
    foreign = source.read(contents, "raw", Facts(config | {"objective": "pred_v"}, source.OPTIONS))
    ours = empty_network(foreign.network, foreign.event_shape, None)
    names = unet_names(ours)
    own = {key: value for key, value in ours.state_dict().items() if key != source.FREQUENCIES}
    back = {f"model.{names[key].name}": tuple(names[key].back(value).shape) for key, value in own.items()}
    assert back == {key: tuple(value.shape) for key, value in held.items() if key.startswith("model.")}
    assert foreign.event_shape == (config.get("channels", 3), config["image_size"], config["image_size"])


def foreign_file(folder, alpha2, objective="pred_v", channels=3, **options):
    """A network of ours with random weights as Trainer would have saved it, raw, and tripled as the average."""
    torch.manual_seed(0)
    network = LinearAttentionUNet(
        (channels, 16, 16), None, **{"channels": 8, "heads": (2,), "head_channels": (4,)} | options
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    names = unet_names(network)
    state = {names[k].name: names[k].back(v) for k, v in network.state_dict().items() if k in names}
    held = {f"model.{name}": value for name, value in state.items()} | tables(alpha2)
    ratio = alpha2 / (1 - alpha2)
    weights = {"pred_noise": np.ones_like(ratio), "pred_x0": ratio, "pred_v": ratio / (ratio + 1)}
    held["loss_weight"] = torch.from_numpy(weights[objective]).float()
    average = {f"ema_model.{name}": 3 * value if name.startswith("model.") else value for name, value in held.items()}
    path = folder / "model-1.pt"
    ema = {"initted": torch.tensor(True), "step": torch.tensor(3), **average}
    torch.save({"step": 3, "model": held, "opt": {}, "ema": ema, "scaler": None, "version": "2.3.4"}, path)
    return path, network.eval()


NETWORKS = {
    "plain": {},
    "three levels": {"channel_mult": (1, 2, 4)},
    "heads per level": {"heads": (2, 4), "head_channels": (4, 8), "full_attention": (True, False)},
    "wider stem": {"stem_channels": 12},
    "gray": {"channels_of_x": 1},
    "learned frequencies": {"noise_features": "learned", "fourier_channels": 8},
    "self-conditioned": {"self_condition": True},
    "learned variance": {"learned_variance": True},
}


@pytest.mark.parametrize("case", NETWORKS)
def test_any_network_is_found(tmp_path, case):
    options = dict(NETWORKS[case])
    channels = options.pop("channels_of_x", 3)
    path, network = foreign_file(tmp_path, linear(40), channels=channels, **options)
    model = load_pretrained(path, weights="raw", facts=SIZE)
    x, c_noise = torch.randn(2, channels, 16, 16), torch.tensor([0.0, 39.0])
    with torch.no_grad():
        torch.testing.assert_close(model.network(x, c_noise), network(x, c_noise), rtol=1e-5, atol=1e-5)
        averaged = load_pretrained(path, facts=SIZE).network.head.weight
    assert torch.equal(averaged, 3 * network.head.weight)


@pytest.mark.parametrize("schedule", ALPHAS)
@pytest.mark.parametrize("objective", source.OBJECTIVES)
def test_schedule_and_objective_are_found(tmp_path, schedule, objective):
    alpha2 = ALPHAS[schedule](200)
    path, network = foreign_file(tmp_path, alpha2, objective)
    model = load_pretrained(path, weights="raw", facts=SIZE | {"schedule": f"{schedule} (default), 200 steps"})
    steps = torch.tensor([0, 1, 100, 198, 199])
    expected = torch.from_numpy((1 / alpha2 - 1) ** 0.5)
    torch.testing.assert_close(model.sde.noise_levels, expected, rtol=3e-7, atol=0)
    x = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    alpha = torch.from_numpy(alpha2[steps]).float().sqrt().view(-1, 1, 1, 1)
    sigma = (1 - torch.from_numpy(alpha2[steps])).float().sqrt().view(-1, 1, 1, 1)
    with torch.no_grad():
        predicted = network(x, steps.float())
        found = model(x, model.sde.times[steps])
    expected = {
        "pred_noise": (x - sigma * predicted) / alpha,
        "pred_x0": predicted,
        "pred_v": alpha * x - sigma * predicted,
    }[objective]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 / alpha.min().item())


def test_other_tables_are_kept(tmp_path):
    alpha2 = np.cumprod(1 - np.linspace(0.01, 0.3, 30))
    path, _ = foreign_file(tmp_path, alpha2)
    foreign = read_pretrained(path, facts=SIZE)
    assert read_pretrained(path, facts=SIZE | {"beta_schedule": "linear"}).sde == foreign.sde
    torch.testing.assert_close(foreign.sde.noise_levels, torch.from_numpy((1 / alpha2 - 1) ** 0.5), rtol=3e-7, atol=0)
    assert foreign.levels.tolist() == foreign.sde.times.flip(0).tolist()


def test_units_of_images(tmp_path):
    path, _ = foreign_file(tmp_path, linear(40))
    ends = torch.tensor([0.5, 255.5])
    for facts, low in (({}, -1.0), ({"auto_normalize": False}, 0.0)):
        transform = load_pretrained(path, facts=SIZE | facts).transform
        torch.testing.assert_close(transform.encode(ends), torch.tensor([low, 1.0]))


def test_images_of_any_size_where_none_is_told(tmp_path):
    path, network = foreign_file(tmp_path, cosine(50))
    foreign = read_pretrained(path, weights="raw")
    assert foreign.unsized == "facts: image_size is needed, height and width of the images: the file does not say it"
    model = foreign.build()
    assert model.event_shape is None
    x, step = torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(0)), torch.full((2,), 7.0)
    torch.testing.assert_close(model.network(x, step), network(x, step))
    assert load_pretrained(path, facts=SIZE).event_shape == (3, 16, 16)
    assert load_pretrained(path, facts={"image_size": [16, 24]}).event_shape == (3, 16, 24)


def refused(sentence, path, weights="ema", **facts):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        load_pretrained(path, weights=weights, facts=facts)


def test_bad_input(tmp_path):
    path, _ = foreign_file(tmp_path, cosine(50))
    refused(
        "facts: schedule tells beta_schedule = 'linear', but the file has 'cosine'", path, **SIZE, schedule="linear"
    )
    refused("facts: beta_schedule = 'sigmoid', but the file has 'cosine'", path, **SIZE, beta_schedule="sigmoid")
    refused("facts: timesteps = 1000, but the file has 50", path, **SIZE, timesteps=1000)
    refused("facts: objective = 'pred_x0', but the file has 'pred_v'", path, **SIZE, objective="pred_x0")
    refused("facts: dim_mults = [1, 2, 4], but the file has (1, 2)", path, **SIZE, dim_mults=[1, 2, 4])
    refused("facts: attn_heads = 4, but the file has (2, 2)", path, **SIZE, attn_heads=4)
    load_pretrained(path, facts=SIZE | {"attn_heads": 2, "attn_dim_head": [4, 4], "full_attn": None, "init_dim": None})
    content = torch.load(path)
    torch.save({"model": content["model"]}, tmp_path / "raw.pt")
    refused("weights = 'ema': raw.pt has no average under 'ema': take 'raw'", tmp_path / "raw.pt", **SIZE)
    load_pretrained(tmp_path / "raw.pt", weights="raw", facts=SIZE)
    without = {name: value for name, value in content["model"].items() if "mem_kv" not in name}
    torch.save({"model": without}, tmp_path / "old.pt")
    refused(
        "the file is of a version of denoising-diffusion-pytorch whose attention", tmp_path / "old.pt", "raw", **SIZE
    )
    short = content["model"] | {"loss_weight": torch.ones(3)}
    torch.save({"model": short}, tmp_path / "short.pt")
    refused("the tables of the chain are not of one shape, betas (50,), ", tmp_path / "short.pt", "raw", **SIZE)
    del content["model"]["loss_weight"]
    torch.save({"model": content["model"]}, tmp_path / "raw.pt")
    refused("facts: objective is needed, what the network predicts", tmp_path / "raw.pt", "raw", **SIZE)
    even, _ = foreign_file(tmp_path, linear(40), channels=2)
    refused("facts: channels is needed, channels of the images", even, **SIZE)
    assert load_pretrained(even, facts=SIZE | {"channels": 2}).event_shape == (2, 16, 16)
