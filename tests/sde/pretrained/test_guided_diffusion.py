"""Files of guided-diffusion: the original's numbers, the published key lists, and files of our own networks."""

import re
from pathlib import Path

import pytest
import torch

from samplers import SAMPLERS, sample
from sde.guidance import Conditional, StaticThreshold
from sde.networks.adm import ADM
from sde.networks.adm_classifier import ADMClassifier
from sde.pretrained import guided_diffusion, load_pretrained, read_pretrained
from sde.pretrained.contents import Contents
from sde.pretrained.edm.dhariwal import dhariwal_unet
from sde.pretrained.facts import Facts
from sde.pretrained.foreign import empty_network
from sde.pretrained.guided_diffusion.source import FREQUENCIES
from sde.pretrained.names.adm import QKV_ORDERS, dhariwal_names, guided_diffusion_names, qkv_rows
from tests.oracles.foreign import fixture, key_list, key_lists, relative

NEW, LEGACY = "qkv, heads, channels", "heads, qkv, channels"
KWARGS = {
    "image_size": 16, "model_channels": 32, "num_res_blocks": 1, "attention_resolutions": [2, 4],
    "channel_mult": [1, 2, 2], "num_head_channels": 16, "schedule": "cosine, 50 steps",
    "use_new_attention_order": False,
}  # fmt: skip


def test_the_originals_network_and_posterior_mean():
    found = fixture("guided-diffusion")
    model = load_pretrained(found.folder / "ema_0.9999_000001.pt", facts=facts_of(found.about))
    x, y, steps = (found.reference[key] for key in ("x", "y", "t"))
    with torch.no_grad():
        assert relative(model.network(x, steps.float(), y), found.reference["net"][:, :3]) < 1e-5
        denoised = model(x, model.sde.times[steps], y)
    assert relative(denoised.clamp(-1, 1), found.reference["pred_xstart"]) < 1e-5
    assert not model.null_trained
    assert torch.equal(model.coefficients(model.sde.times[steps])[-1].float(), steps.float())
    levels = model.sde.times[torch.arange(900, -1, -100)]
    # The middles of the cells of 0 and 255.
    clipped = StaticThreshold(Conditional(model, torch.tensor([0, 1])), low=0.5, high=255.5)
    drawn = sample(clipped, SAMPLERS["ddim"](), found.reference["noise"], levels)
    assert relative(drawn, found.reference["ddim10"]) < 1e-4


def test_the_originals_classifier():
    found = fixture("guided-diffusion-classifier")
    facts = {**found.about["kwargs"], "schedule": "linear, 1000 steps"}
    model = load_pretrained(found.folder / "classifier.pt", facts=facts)
    x, y, steps = (found.reference[key] for key in ("x", "y", "t"))
    x.requires_grad_()
    logits = model(x, model.sde.times[steps])
    assert relative(logits, found.reference["logits"]) < 1e-5
    (gradient,) = torch.autograd.grad(logits.log_softmax(1).gather(1, y[:, None]).sum(), x)
    assert relative(gradient, found.reference["grad"]) < 1e-5


def test_a_classifier_without_a_schedule_is_one_of_the_projects_own(tmp_path):
    """Its logits depend on the number of the step alone."""
    path, _ = foreign_file(tmp_path, NETWORK | {"pool": "attention"}, 7, classifier=True)
    kwargs = {key: value for key, value in KWARGS.items() if key != "schedule"} | {"pool": "attention"}
    with pytest.warns(UserWarning, match="noise_schedule and diffusion_steps are not told") as told:
        model = load_pretrained(path, facts=kwargs)
    assert len(told) == 1
    assert model.sde == load_pretrained(path, facts=kwargs | {"schedule": "linear, 1000 steps"}).sde
    refused(
        "facts: noise_schedule (the schedule of the betas, linear or cosine) and rescale_timesteps (",
        path,
        **kwargs,
        diffusion_steps=50,
    )


def facts_of(about):
    return {**about["kwargs"], "schedule": about["schedule"]}


@pytest.mark.parametrize("name", key_lists("guided-diffusion"))
def test_published_key_lists(name):
    listed = key_list(name)
    tensors = {key: torch.empty(shape, device="meta") for key, shape, _ in listed["tensors"]}
    config = {"noise_schedule": "cosine", "diffusion_steps": 1000} | listed["config"]
    contents = Contents(Path("published.pt"), "torch", tensors)
    assert guided_diffusion.recognizes(contents)
    foreign = guided_diffusion.read(contents, "ema", Facts(config, guided_diffusion.OPTIONS))
    ours = empty_network(foreign.network, foreign.event_shape, foreign.num_classes, foreign.classifier)
    names = guided_diffusion_names(ours, NEW)
    own = {key: value for key, value in ours.state_dict().items() if key != FREQUENCIES}
    back = {names[key].name: tuple(names[key].back(value).shape) for key, value in own.items()}
    assert back == {key: tuple(value.shape) for key, value in tensors.items()}, "one to one, in both directions"
    assert foreign.event_shape == (3, config["image_size"], config["image_size"])
    assert foreign.state.keys() == ours.state_dict().keys()


@pytest.mark.parametrize("name", [name for name in key_lists("edm") if name.endswith("adm")])
def test_published_key_lists_of_edm(name):
    listed = key_list(name)
    tensors = {key.removeprefix("model."): torch.empty(shape, device="meta") for key, shape, _ in listed["tensors"]}
    config = listed["config"]
    network, state = dhariwal_unet(tensors, lambda option, default=None: config.get(option, default), False)
    ours = empty_network(network, (3, 64, 64), config["label_dim"])
    assert state.keys() == ours.state_dict().keys()
    names = dhariwal_names(ours, 64)
    own = {key: value for key, value in ours.state_dict().items() if not key.endswith("frequencies")}
    back = {names[key].name: tuple(names[key].back(value).shape) for key, value in own.items()}
    assert back == {key: tuple(v.shape) for key, v in tensors.items() if not key.endswith("resample_filter")}


@pytest.mark.parametrize("order", QKV_ORDERS)
def test_orders_of_q_k_and_v(order):
    """A row is numbered by what it is of: q, k or v, a head, and a channel of it."""
    sizes = {"qkv": 3, "heads": 2, "channels": 4}
    units = {"qkv": 100, "heads": 10, "channels": 1}
    axes = order.split(", ")
    theirs = torch.zeros([sizes[axis] for axis in axes])
    for place, axis in enumerate(axes):
        numbers = units[axis] * torch.arange(sizes[axis])
        theirs += numbers.view(*[-1 if other == place else 1 for other in range(3)])
    rows = qkv_rows("qkv", torch.empty(24, 1, 1, 1), 2, order)
    ours = rows.ours(theirs.reshape(24, 1, 1))
    expected = [100 * part + 10 * head + channel for part in range(3) for head in range(2) for channel in range(4)]
    assert ours.flatten().tolist() == expected
    assert torch.equal(rows.back(ours).flatten(), theirs.flatten())


def foreign_file(folder, network, num_classes=None, classifier=False, order=LEGACY, name="weights.pt"):
    """A network of ours with random weights, as guided-diffusion would have written it, and the network."""
    torch.manual_seed(0)
    options = {key: value for key, value in network.items() if key != "name"}
    ours = (ADMClassifier if classifier else ADM)((3, 16, 16), num_classes, **options).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    names = guided_diffusion_names(ours, order)
    state = {key: value for key, value in ours.state_dict().items() if key != FREQUENCIES}
    torch.save({names[key].name: names[key].back(value) for key, value in state.items()}, folder / name)
    return folder / name, ours


UNETS = {
    "as published": ({}, {}),
    "new order": ({}, {"use_new_attention_order": True}),
    "added embedding": ({"adaptive": False}, {"use_scale_shift_norm": False}),
    "convolutions": ({"resample_blocks": False}, {"resblock_updown": False}),
    "pools": ({"resample_blocks": False, "resample_conv": False}, {"conv_resample": False}),
    "heads": ({"num_heads": 4, "head_channels": 64}, {"num_heads": 4, "num_head_channels": -1}),
    "heads upsample": (
        {"num_heads": 2, "num_heads_upsample": 8, "head_channels": 64},
        {"num_heads": 2, "num_heads_upsample": 8, "num_head_channels": -1},
    ),
    "learned variance": ({"learned_variance": True}, {"learn_sigma": True}),
    "classes": ({}, {"num_classes": 5}),
    "fractions": ({"channel_mult": (0.5, 1, 1.5)}, {"channel_mult": "0.5,1,1.5", "num_head_channels": 16}),
    "one level": (
        {"channel_mult": (1,), "attention_resolutions": ()},
        {"channel_mult": [1], "attention_resolutions": []},
    ),
    "more blocks": ({"num_res_blocks": 2}, {"num_res_blocks": 2}),
}
NETWORK = {
    "name": "adm", "channels": 32, "channel_mult": (1, 2, 2), "num_res_blocks": 1, "attention_resolutions": (8, 4),
    "head_channels": 16, "group_channels": 1,
}  # fmt: skip


@pytest.mark.parametrize("case", UNETS)
def test_any_options_are_found(tmp_path, case):
    options, facts = UNETS[case]
    num_classes, order = facts.get("num_classes"), NEW if facts.get("use_new_attention_order") else LEGACY
    network = NETWORK | options
    if case == "fractions":
        network["channels"] = facts["model_channels"] = 64
    path, ours = foreign_file(tmp_path, network, num_classes, order=order)
    foreign = read_pretrained(path, facts=KWARGS | facts)
    generator = torch.Generator().manual_seed(1)
    x, steps = torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([3, 40])
    y = torch.tensor([0, 4]) if num_classes else None
    model = foreign.build()
    with torch.no_grad():
        predicted = ours(x, steps.float(), y)
        found = model(x, model.sde.times[steps], y)
    at = model.sde.noise_levels[steps].view(-1, 1, 1, 1).float()
    torch.testing.assert_close(found, x * (1 + at**2).sqrt() - at * predicted, rtol=1e-4, atol=1e-4)
    # What the file says need not be told.
    told = {"image_size", "num_heads", "num_head_channels", "num_heads_upsample", "schedule"}
    fewer = {name: value for name, value in (KWARGS | facts).items() if name in told}
    fewer["use_new_attention_order"] = order == NEW
    assert read_pretrained(path, facts=fewer).network == foreign.network


@pytest.mark.parametrize("pool", ["attention", "adaptive", "spatial", "spatial_v2"])
def test_any_pool_is_found(tmp_path, pool):
    path, ours = foreign_file(tmp_path, NETWORK | {"pool": pool}, 7, classifier=True)
    model = load_pretrained(path, facts=KWARGS | {"pool": pool, "resblock_updown": True})
    x, steps = torch.randn(2, 3, 16, 16), torch.tensor([0, 49])
    torch.testing.assert_close(model(x, model.sde.times[steps]), ours(x, steps.float()), rtol=1e-4, atol=1e-5)
    assert model.num_classes == 7


def test_steps_and_predictions(tmp_path):
    path, _ = foreign_file(tmp_path, NETWORK)
    apart = {"noise_schedule": "linear", "diffusion_steps": 250}
    told = {name: value for name, value in KWARGS.items() if name != "schedule"}
    refused("facts: rescale_timesteps is needed", path, **told | apart)
    assert load_pretrained(path, facts=told | apart | {"rescale_timesteps": True}).noise_input.scale == 996
    assert load_pretrained(path, facts=told | apart | {"diffusion_steps": 1000}).noise_input.scale == 999
    base = KWARGS | {"schedule": "linear, 250 steps"}
    plain, rescaled = (load_pretrained(path, facts=base | {"rescale_timesteps": on}) for on in (False, True))
    worded = load_pretrained(path, facts=base | {"schedule": "linear, 250 steps, rescale_timesteps"})
    assert worded.noise_input == rescaled.noise_input
    times = plain.sde.times[torch.tensor([0, 1, 249])]
    assert plain.coefficients(times)[-1].tolist() == pytest.approx([0, 1, 249])
    assert rescaled.coefficients(times)[-1].tolist() == pytest.approx([0, 4, 996])
    # A quarter of the steps, each of four times the beta.
    assert plain.sde.noise_levels[0].item() == pytest.approx((4e-4 / (1 - 4e-4)) ** 0.5)
    assert plain.sde._table_of_betas()[-1] == pytest.approx(0.08)
    denoised = load_pretrained(path, facts=base | {"predict_xstart": True})
    assert (plain.parametrization, denoised.parametrization) == ("noise", "denoised")
    assert not plain.scaled_input
    assert read_pretrained(path, facts=base).levels.tolist() == plain.sde.times.flip(0).tolist()
    torch.testing.assert_close(plain.transform.encode(torch.tensor([0.5, 255.5])), torch.tensor([-1.0, 1.0]))


def test_half_precision_is_read(tmp_path):
    path, ours = foreign_file(tmp_path, NETWORK)
    torch.save({key: value.half() for key, value in torch.load(path).items()}, path)
    model = load_pretrained(path, facts=KWARGS)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(model.network.head.weight, ours.head.weight.half().float())


def refused(sentence, path, weights="ema", **facts):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        load_pretrained(path, weights=weights, facts=facts)


def test_what_has_to_be_told(tmp_path):
    path, _ = foreign_file(tmp_path, NETWORK)
    heads, size, order = {"num_head_channels": 16}, {"image_size": 16}, {"use_new_attention_order": False}
    schedule = {"noise_schedule": "linear", "diffusion_steps": 1000}
    refused("facts: image_size (height and width of the images), noise_schedule (the schedule", path)
    refused("facts: image_size is needed, height and width of the images", path, **schedule, **heads, **order)
    refused("facts: noise_schedule is needed, the schedule of the betas, linear or cosine", path,
            **size, **heads, **order, diffusion_steps=1000)  # fmt: skip
    refused("facts: rescale_timesteps is needed, whether steps are told in thousandths", path,
            **size, **heads, **order, noise_schedule="linear", diffusion_steps=50)  # fmt: skip
    refused("facts: num_head_channels is needed, channels per head of attention", path, **size, **schedule, **order)
    refused("facts: num_heads is needed, heads of attention", path, **size, **schedule, **order, num_head_channels=-1)
    refused("facts: use_new_attention_order is needed, whether q, k and v", path, **size, **schedule, **heads)
    both = (
        "facts: num_head_channels (channels per head of attention, or -1 with num_heads told instead) and "
        "use_new_attention_order ("
    )
    load_pretrained(path, facts=size | schedule | heads | order)
    # With one head there are no orders.
    load_pretrained(path, facts=size | schedule | {"num_heads": 1})
    # A whole call, or all flags of a script, leave out what has its default there; a part of one does not.
    refused(both, path, **size, **schedule, model_channels=32)
    refused("facts: use_new_attention_order is needed", path, **size, **schedule, model_channels=32, num_heads=2)
    refused(both, path, **size, **schedule, num_channels=32)
    call = {"in_channels": 3, "model_channels": 32, "out_channels": 3, "num_res_blocks": 1}
    call["attention_resolutions"] = [2, 4]
    assert read_pretrained(path, facts=size | schedule | call).network["num_heads"] == 1
    flags = {"num_channels": 32, "num_res_blocks": 1}
    assert read_pretrained(path, facts=size | schedule | flags).network["num_heads"] == 4


def test_a_classifier_has_to_be_told_its_heads(tmp_path):
    path, _ = foreign_file(tmp_path, NETWORK, 7, classifier=True)
    part = {"image_size": 16, "num_head_channels": 16, "schedule": "linear, 1000 steps"}
    refused("facts: use_new_attention_order is needed", path, **part)
    flags = {"image_size": 16, "classifier_width": 32, "classifier_depth": 1, "schedule": "linear, 1000 steps"}
    assert read_pretrained(path, facts=flags).network["head_channels"] == 64


def test_kinds_of_facts(tmp_path):
    path, _ = foreign_file(tmp_path, NETWORK)
    for name, told, kind in (
        ("use_new_attention_order", "False", "true or false"),
        ("image_size", None, "a whole number"),
        ("image_size", 16.5, "a whole number"),
        ("num_head_channels", True, "a whole number"),
        ("dropout", "0.1", "a number"),
        ("rescale_timesteps", 1, "true or false"),
    ):
        refused(f"facts: {name} = {told!r}: needs {kind}", path, **KWARGS | {name: told})
    refused("facts: diffusion_steps = '50': needs a whole number", path, image_size=16, noise_schedule="linear",
            diffusion_steps="50")  # fmt: skip


def test_what_contradicts_the_file(tmp_path):
    path, _ = foreign_file(tmp_path, NETWORK, 5)
    for name, told, there in (
        ("model_channels", 64, "32"),
        ("num_channels", 64, "32"),
        ("num_res_blocks", 3, "1"),
        ("channel_mult", "1,2,3", r"\(1, 2, 2\)"),
        ("attention_resolutions", [4], r"\(2, 4\)"),
        ("attention_resolutions", "16,8", "'8,4'"),
        ("class_cond", False, "True"),
        ("num_classes", 7, "5"),
        ("use_scale_shift_norm", False, "True"),
        ("resblock_updown", False, "True"),
        ("in_channels", 1, "3"),
    ):
        with pytest.raises(ValueError, match=f"^facts: {name} = .*, but the file has {there}$"):
            load_pretrained(path, facts=KWARGS | {name: told})
    for told in ({"learn_sigma": True}, {"schedule": "linear, 50 steps, learn_sigma"}):
        refused("facts: learn_sigma is told, but the network takes 3 channels and returns 3", path, **KWARGS | told)
    refused("facts: num_head_channels = 48 does not divide 64 channels", path, **KWARGS | {"num_head_channels": 48})
    refused("facts: the schedule 'sigmoid' has no process here: linear and cosine have", path,
            **KWARGS | {"schedule": "sigmoid, 50 steps"})  # fmt: skip
    refused("facts: 'width' is no option of this source", path, width=3)


def test_averaged_and_raw_weights(tmp_path):
    raw, _ = foreign_file(tmp_path, NETWORK, name="model000010.pt")
    refused("weights = 'ema': model000010.pt holds the raw weights alone, the others are in ema_RATE_STEP.pt", raw)
    load_pretrained(raw, weights="raw", facts=KWARGS)
    average, _ = foreign_file(tmp_path, NETWORK, name="ema_0.9999_000010.pt")
    refused("weights = 'raw': ema_0.9999_000010.pt holds the averaged weights alone", average, "raw")
    published, _ = foreign_file(tmp_path, NETWORK)
    for path, weights, held in ((raw, "raw", "raw"), (average, "ema", "ema"), (published, "ema", "as published")):
        assert read_pretrained(path, weights=weights, facts=KWARGS).origin["weights"] == held


def test_networks_that_do_not_fit(tmp_path):
    path, _ = foreign_file(tmp_path, NETWORK)
    tensors = torch.load(path)
    torch.save(tensors | {"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}, tmp_path / "larger.pt")
    refused("the network takes 6 channels and returns 3: one of super-resolution", tmp_path / "larger.pt", **KWARGS)
    torch.save(tensors | {"middle_block.3.weight": torch.zeros(3)}, tmp_path / "more.pt")
    refused("the weights do not fit the facts: it has without a place here middle_block.3.weight",
            tmp_path / "more.pt", **KWARGS)  # fmt: skip
    for name in ("middle_block.1.qkv.weight", "middle_block.1.proj_out.weight"):
        # As many numbers as there should be.
        torch.save(tensors | {name: tensors[name].transpose(0, 2)}, tmp_path / "transposed.pt")
        refused(f"the weights do not fit the facts: {name} is (1, ", tmp_path / "transposed.pt", **KWARGS)
    del tensors["middle_block.1.qkv.weight"]
    torch.save(tensors, tmp_path / "fewer.pt")
    refused(
        "the weights do not fit the facts: the file lacks middle_block.1.qkv.weight", tmp_path / "fewer.pt", **KWARGS
    )


def test_edms_variant_by_its_own_names():
    """Heads of 64 channels, and none below; rows of a head are q, k and v of its first channel, then of the next;
    groups of at least four channels; a column for each class."""
    kwargs = {"img_resolution": 8, "img_channels": 1, "label_dim": 3, "model_channels": 32, "channel_mult": [1, 4],
              "num_blocks": 1, "attn_resolutions": [8, 4], "augment_dim": 2}  # fmt: skip
    shape = NETWORK | {"channel_mult": (1, 4), "attention_resolutions": (4,), "head_channels": 64, "augment_dim": 2}
    like = empty_network(shape, (1, 8, 8), 3)
    names = dhariwal_names(like, 8)
    generator = torch.Generator().manual_seed(0)
    own = {key: value for key, value in like.state_dict().items() if not key.endswith("frequencies")}
    theirs = {
        names[key].name: 0.2 * torch.randn(names[key].back(value).shape, generator=generator)
        for key, value in own.items()
    }
    options, state = dhariwal_unet(theirs, lambda name, default=None: kwargs.get(name, default), False)
    assert options["attention_resolutions"] == (4,), "32 channels are no head"
    network = ADM((1, 8, 8), 3, **{key: value for key, value in options.items() if key != "name"})
    network.load_state_dict(state)
    groups = {m.num_channels: m.num_groups for m in network.modules() if isinstance(m, torch.nn.GroupNorm)}
    assert {channels: groups[channels] for channels in (32, 128)} == {32: 8, 128: 32}
    x = torch.randn(2, 128, 4, 4, generator=generator)
    part = {name.removeprefix("dec.4x4_in0."): value for name, value in theirs.items() if "4x4_in0" in name}
    h = torch.nn.functional.group_norm(x, 32, part["norm2.weight"], part["norm2.bias"], eps=1e-5)
    rows = torch.einsum("ij,bjyx->biyx", part["qkv.weight"][:, :, 0, 0], h) + part["qkv.bias"].view(-1, 1, 1)
    heads = []
    for head in range(2):
        q, k, v = (rows[:, 192 * head + place : 192 * (head + 1) : 3].flatten(2) for place in range(3))
        heads.append(v @ (q.transpose(1, 2) @ k / 8).softmax(2).transpose(1, 2))
    h = torch.einsum("ij,bjn->bin", part["proj.weight"][:, :, 0, 0], torch.cat(heads, 1)) + part["proj.bias"].view(
        -1, 1
    )
    attention = network.encoder.middle[0].attention
    torch.testing.assert_close(attention(x), x + h.view(x.shape), rtol=1e-4, atol=1e-5)
    assert torch.equal(network.encoder.embedding.mapping.label.weight, theirs["map_label.weight"].T)
