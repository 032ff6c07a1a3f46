"""k-diffusion's image models: outputs of the original code, published names and shapes, options told by the file."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from samplers import SAMPLERS, sample
from sde.guidance import Conditional
from sde.pretrained import load_pretrained, read_pretrained
from sde.pretrained.contents import Contents
from sde.pretrained.facts import Facts
from sde.pretrained.foreign import empty_network
from sde.pretrained.k_diffusion import OPTIONS, read
from sde.pretrained.k_diffusion.names import transformer_names, unet_names
from sde.process.coefficients import expand
from tests.oracles.foreign import fixture, key_list, key_lists, relative

FIXTURES = {"k-diffusion-image_v1": "model_00000010.pth", "k-diffusion-image_transformer_v2": "model.safetensors"}
THEIRS = {"euler": "ddim", "heun": "heun", "dpm_2": "dpm2", "lms": "lms", "dpmpp_2m": "dpmpp"}
"""Their samplers, and ours that are the same method."""


def labels_of(model, reference):
    """Their classes as labels, of which theirs for none is the number of classes."""
    classes = reference.get("in_class_cond")
    return None if classes is None else torch.where(classes == model.num_classes, -1, classes)


@pytest.mark.parametrize("name", FIXTURES)
def test_denoised_predictions(name):
    found = fixture(name)
    model, reference = load_pretrained(found.folder / FIXTURES[name]), found.reference
    sigma = reference["sigma"]
    x, t = reference["x"] * expand(sigma, reference["x"]), model.sde.t_of_noise_level(sigma.double())
    with torch.no_grad():
        denoised = model(x, t, labels_of(model, reference))
    for row in range(len(x)):
        assert relative(denoised[row], reference["D"][row]) < 2e-6


@pytest.mark.parametrize("name", FIXTURES)
@pytest.mark.parametrize("theirs", THEIRS)
def test_samples(name, theirs):
    """On the recorded noise levels; the last one, 0, is the denoising at the end."""
    found = fixture(name)
    model, reference = load_pretrained(found.folder / FIXTURES[name]), found.reference
    labels = labels_of(model, reference)
    times = model.sde.t_of_noise_level(reference["sigmas"][:-1].double())
    noise = reference["noise"]
    bound = model if labels is None else Conditional(model, labels[: len(noise)])
    drawn = sample(bound, SAMPLERS[THEIRS[theirs]](), noise, times)
    assert relative(drawn, reference[f"sample_{theirs}"]) < 5e-6


def test_both_weights_of_a_file_of_training():
    found = fixture("k-diffusion-image_v1")
    path = found.folder / FIXTURES["k-diffusion-image_v1"]
    content = torch.load(path, weights_only=True)
    for weights, key in (("ema", "model_ema"), ("raw", "model")):
        state = read_pretrained(path, "k_diffusion", weights).state
        theirs = content[key]["inner_model.u_net.u_blocks.0.1.qkv_proj.weight"]
        assert torch.equal(state["up.1.0.attention.qkv.weight"], theirs)


@pytest.mark.parametrize("name", key_lists("k-diffusion") or [None])
def test_published_names_and_shapes(name):
    """One to one: every tensor has a place here."""
    if name is None:
        pytest.skip("there are no key lists: they are not part of this project")
    listed = key_list(name)
    tensors = {key: torch.empty(shape, device="meta") for key, shape, _ in listed["tensors"]}
    contents = Contents(name, "torch", {"model_ema": tensors, "config": listed["config"]})
    foreign = read(contents, "ema", Facts(None, OPTIONS))
    ours = empty_network(foreign.network, foreign.event_shape, foreign.num_classes).state_dict()
    assert {key: value.shape for key, value in foreign.state.items()} == {k: v.shape for k, v in ours.items()}
    assert len(ours) == len(tensors)
    config = listed["config"]["model"]
    assert foreign.event_shape == (config["input_channels"], *config["input_size"])
    assert foreign.sigma_data == config["sigma_data"]
    assert (foreign.sde.sigma_min, foreign.sde.sigma_max) == (config["sigma_min"], config["sigma_max"])
    # The same from facts, their config as it is, for a file that has none.
    alone = read(Contents(name, "torch", {"model_ema": tensors}), "ema", Facts(listed["config"], OPTIONS))
    assert (alone.network, alone.num_classes) == (foreign.network, foreign.num_classes)


def random_network(network, shape, num_classes):
    torch.manual_seed(0)
    built = type(empty_network(network, shape, num_classes))(
        shape, num_classes, **{k: v for k, v in network.items() if k != "name"}
    )
    for name, parameter in built.named_parameters():
        if name.endswith(".null"):
            torch.nn.init.zeros_(parameter)
        else:
            torch.nn.init.normal_(parameter, std=0.1)
    return built.eval()


UNET = {
    "name": "mapped_unet", "patch_size": 2, "widths": [32, 64], "depths": [2, 1], "attended_levels": [1],
    "crossed_levels": [], "mapping_width": 16, "dropout": 0.0, "augment_dim": 9, "stem_width": 32,
    "log_variance": False,
}  # fmt: skip
UNET_CONFIG = {
    "type": "image_v1", "input_channels": 2, "input_size": [16, 8], "patch_size": 2, "mapping_out": 16,
    "depths": [2, 1], "channels": [32, 64], "self_attn_depths": [False, True],
    "sigma_data": 0.7, "sigma_min": 0.02, "sigma_max": 50,
}  # fmt: skip
UNETS = {
    "plain": ({}, {}),
    "no labels of augmentation": ({"augment_dim": 0}, {"augment_wrapper": False}),
    "log-variance": ({"log_variance": True}, {"has_variance": True}),
    "skipped level": ({"stem_width": 24}, {"skip_stages": 1, "depths": [1, 2, 1], "channels": [24, 32, 64],
                                           "self_attn_depths": [True, False, True]}),
    "all conditions": (
        {"crossed_levels": [0], "conditions": {"vector": (3,), "image": (1, 16, 8), "sequence": (1, 5)}},
        {"mapping_cond_dim": 3, "unet_cond_dim": 1, "cross_cond_dim": 5, "cross_attn_depths": [True, False]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNETS)
def test_options_of_a_unet_are_told_by_its_file(tmp_path, case):
    options, config = UNETS[case]
    options, config = UNET | options, UNET_CONFIG | config
    built, skipped = random_network(options, (2, 16, 8), None), config.get("skip_stages", 0)
    ours = built.state_dict()
    theirs = {}
    for here, there in unet_names(ours, options, skipped).items():
        parts = [theirs[there.name]] if there.name in theirs else []
        theirs[there.name] = torch.cat([*parts, there.back(ours[here])], 1) if parts else there.back(ours[here])
    if skipped:
        theirs["inner_model.u_net.d_blocks.0.1.main.0.mapper.weight"] = torch.ones(48, 16)
        theirs["inner_model.u_net.d_blocks.0.1.main.2.weight"] = torch.ones(24, 24, 3, 3)
        theirs["inner_model.u_net.d_blocks.0.2.qkv_proj.weight"] = torch.ones(72, 24, 1, 1)
        theirs["inner_model.u_net.u_blocks.2.0.main.2.weight"] = torch.ones(24, 24, 3, 3)
    raw = {name: value + 0.1 for name, value in theirs.items()}
    path = tmp_path / "model.pth"
    torch.save({"model": raw, "model_ema": theirs, "config": {"model": config, "dataset": {"type": "x"}}}, path)
    foreign = read_pretrained(path)
    assert foreign.options == options
    assert (foreign.sigma_data, foreign.sde.sigma_max, foreign.null_trained) == (0.7, 50, "conditions" not in options)
    x, c_noise = torch.randn(2, 2, 16, 8), torch.tensor([-0.3, 0.4])
    cond = {kind: torch.randn(2, *shape) for kind, shape in options.get("conditions", {}).items()} or None
    torch.testing.assert_close(foreign.build().network(x, c_noise, cond), built(x, c_noise, cond))
    assert not torch.allclose(load_pretrained(path, weights="raw").network(x, c_noise, cond), built(x, c_noise, cond))


HDIT = {
    "name": "hdit", "patch_size": [2, 4], "widths": [32, 64, 48], "depths": [2, 1, 1], "hidden_widths": [40, 50, 60],
    "attentions": ["shifted_window", "neighborhood", "none"], "head_widths": [16, 32, 48], "windows": [4, 3, 7],
    "mapping_width": 24, "mapping_depth": 2, "mapping_hidden": 30, "dropout": [0.0, 0.0, 0.1], "mapping_dropout": 0.0,
    "augment_dim": 9, "conditions": {"vector": (3,)},
}  # fmt: skip
HDIT_CONFIG = {
    "type": "image_transformer_v2", "input_channels": 1, "input_size": [32, 64], "patch_size": [2, 4],
    "depths": [2, 1, 1], "widths": [32, 64, 48], "d_ffs": [40, 50, 60], "dropout_rate": [0.0, 0.0, 0.1],
    "self_attns": [{"type": "shifted-window", "d_head": 16, "window_size": 4},
                   {"type": "neighborhood", "d_head": 32, "kernel_size": 3}, {"type": "none"}],
    "mapping_cond_dim": 3, "sigma_data": 0.5, "sigma_min": 0.01, "sigma_max": 80,
}  # fmt: skip


def transformer_file(path, config=HDIT_CONFIG, classes=4, **changes):
    """A slim file of a random HDiT, and the network."""
    built = random_network(HDIT, (1, 32, 64), classes)
    names = transformer_names(built.state_dict(), HDIT)
    theirs = {there.name: there.back(built.state_dict()[here]).contiguous() for here, there in names.items()}
    metadata = {"config": json.dumps({"model": config, "dataset": {"num_classes": classes}})} if config else None
    save_file(theirs | changes, path, metadata)
    return built


def test_options_of_a_transformer_are_told_by_its_file(tmp_path):
    path = tmp_path / "model.safetensors"
    built = transformer_file(path)
    foreign = read_pretrained(path)
    assert foreign.options == HDIT
    assert (foreign.num_classes, foreign.event_shape, foreign.null_trained) == (4, (1, 32, 64), False)
    x, c_noise, cond = torch.randn(2, 1, 32, 64), torch.tensor([-0.3, 0.4]), {"labels": torch.tensor([3, -1])}
    cond["vector"] = torch.randn(2, 3)
    torch.testing.assert_close(foreign.build().network(x, c_noise, cond), built(x, c_noise, cond))
    assert foreign.transform.encode(torch.tensor([[[[127.5 + 0.5]]]])).item() == pytest.approx(0)


def test_facts_for_a_file_without_a_config(tmp_path):
    path = tmp_path / "model.safetensors"
    built = transformer_file(path, None)
    with pytest.raises(ValueError, match=r"facts: input_channels \(channels of the images\), input_size \("):
        load_pretrained(path)
    facts = {"model": HDIT_CONFIG, "dataset": {"type": "imagefolder", "num_classes": 4}, "optimizer": {"lr": 1.0}}
    assert read_pretrained(path, facts=facts).options == HDIT
    flat = {key: HDIT_CONFIG[key] for key in
            ("input_channels", "input_size", "patch_size", "self_attns", "sigma_min", "sigma_max")}  # fmt: skip
    with pytest.raises(
        ValueError,
        match=r"facts: dropout_rate \(.*\), mapping_dropout_rate .*, sigma_data .* and cond_dropout_rate",
    ):
        load_pretrained(path, facts=flat)
    flat |= {"dropout_rate": 0.0, "mapping_dropout_rate": 0.0, "cond_dropout_rate": 0.1, "sigma_data": 0.5}
    model = load_pretrained(path, facts=flat)
    x, zero = torch.randn(1, 1, 32, 64), torch.zeros(1)
    torch.testing.assert_close(model.network(x, zero), built(x, zero))


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"widths": [32, 64, 64]}, r"facts: widths = \[32, 64, 64\], but the file has \[32, 64, 48\]"),
        ({"num_classes": 10}, "facts: num_classes = 10, but the file has 4"),
        ({"sigma_max": 160}, "facts: sigma_max = 160, but the file has 80"),
        ({"nf": 128}, "facts: 'nf' is no option of this source"),
    ],
)
def test_facts_that_contradict(tmp_path, facts, sentence):
    path = tmp_path / "model.safetensors"
    transformer_file(path)
    with pytest.raises(ValueError, match=sentence):
        load_pretrained(path, facts=facts)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"input_channels": 3}, "patch_in.proj.weight is "),
        ({"self_attns": [{"type": "global", "d_head": 16}] * 2}, "self_attns has 2 entries, but the file has 3 levels"),
        ({"self_attns": [{"type": "local"}] * 3}, "the type 'local': k-diffusion has global, neighborhood"),
        ({"self_attns": [{"type": "none"}] * 3}, "the type 'none' at level 0, but the file has attention"),
        ({"self_attns": [{"type": "shifted-window", "d_head": 16}] * 3}, "self_attns needs window_size at level 0"),
        ({"self_attns": [{"type": "global"}] * 3}, "d_head = 64 at level 0, but the file has 16: 2 heads of 32"),
        ({"input_size": 32}, r"input_size = 32: needs height and width, as \[32, 32\]"),
    ],
)
def test_files_that_contradict_themselves(tmp_path, config, sentence):
    path = tmp_path / "model.safetensors"
    transformer_file(path, HDIT_CONFIG | config)
    with pytest.raises(ValueError, match=sentence):
        load_pretrained(path)


def test_files_that_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    transformer_file(path, more=torch.ones(1))
    with pytest.raises(ValueError, match="it has without a place here more"):
        load_pretrained(path)
    with pytest.raises(ValueError, match=r"convert_for_inference\.py holds the average alone, take 'ema'"):
        load_pretrained(path, weights="raw")
    first = {"time_emb.weight": torch.ones(1), "mapping.in_norm.scale": torch.ones(1), "in_proj.weight": torch.ones(1)}
    save_file(first, path)
    with pytest.raises(ValueError, match="image_transformer_v1 has no network here: image_v1 and"):
        load_pretrained(path)
    ours = random_network(UNET, (2, 16, 8), None).state_dict()
    theirs = {there.name: there.back(ours[here]) for here, there in unet_names(ours, UNET).items()}
    torch.save({"model": theirs, "config": {"model": UNET_CONFIG}}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="weights = 'ema': the file has none of these, take 'raw'"):
        load_pretrained(tmp_path / "model.pth")


def test_the_null_class_is_the_last_one_there(tmp_path):
    path, table = tmp_path / "model.safetensors", torch.randn(5, 24)
    transformer_file(path, **{"class_emb.weight": table})
    found = load_pretrained(path).network.embedding.label(torch.tensor([0, 3, -1]))
    assert torch.equal(found, table[[0, 3, 4]])


def test_frequencies_are_turns(tmp_path):
    path, weight = tmp_path / "model.safetensors", torch.randn(12, 1)
    transformer_file(path, **{"time_emb.weight": weight})
    found = load_pretrained(path).network.embedding.noise[0](torch.tensor([0.3]))
    angle = 2 * math.pi * 0.3 * weight[:, 0]
    torch.testing.assert_close(found[0], torch.cat([angle.cos(), angle.sin()]))
