"""ControlNet: what it adds to a frozen base, where, and what of it is trained."""

import copy
from functools import partial
from unittest.mock import patch

import pytest
import torch

from sde import VPSDE, Denoiser, Transform
from sde.checkpoint.spec import build_denoiser
from sde.condition.standardization import Standardization
from sde.condition.tree import control_kind, drop_conditions
from sde.data import Dataset
from sde.guidance import ClassifierFree, Conditional
from sde.networks import MLP, DiT, UNet
from sde.networks.controlnet import ControlNet
from sde.networks.hint import HintEncoder
from sde.training import Trainer, TrainingOptions, denoising_loss
from tests.batteries.networks import VARIANTS, build, inputs

CONTROLLED = [variant for variant, (name, _) in VARIANTS.items() if name != "mlp"]
SHAPE = (2, 5, 6)


def randomised(network, seed=0, std=0.2):
    """The network with random weights in all its branches."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.branches.parameters():
        parameter.data.normal_(std=std, generator=generator)
    return network.eval()


def controls_for(count, *shapes):
    generator = torch.Generator().manual_seed(3)
    return {control_kind(i): torch.randn(count, *shape, generator=generator) for i, shape in enumerate(shapes)}


@torch.no_grad()
@pytest.mark.parametrize("variant", CONTROLLED)
def test_the_base_before_training_and_with_residuals_after(variant):
    """Bit for bit before, and at scale 0; for rows without a control always; a control changes its own row alone. What
    the base takes up is scale_1 r_1 + scale_2 r_2, r of each alone."""
    # Frozen as it will be: of attention in windows, torch rounds by whether weights require a gradient.
    base = build(variant, SHAPE, 3).eval().requires_grad_(False)
    x, c_noise = inputs(SHAPE, 4)
    cond = {"labels": torch.tensor([0, 2, -1, 1])}
    alone = base(x, c_noise, cond)
    shapes = [(1, 5, 6), (3, 10, 12)]
    network = ControlNet(copy.deepcopy(base), shapes).eval()
    told = cond | controls_for(4, *shapes)
    assert torch.equal(network(x, c_noise, told), alone)
    assert torch.equal(network(x, c_noise, cond), alone)
    randomised(network)
    network.scales = [1.0, 0.5]
    told["control"][1], told["control_2"][1:] = torch.nan, torch.nan
    found = network(x, c_noise, told)
    assert [torch.equal(*rows) for rows in zip(found, alone, strict=True)] == [False, True, False, False]
    assert found.isfinite().all()
    part = {kind: c[2:3] for kind, c in told.items()}
    torch.testing.assert_close(network(x[2:3], c_noise[2:3], part), found[2:3], rtol=1e-4, atol=1e-5)
    taken = []

    def decode(x, c_noise, encoding, residuals=()):
        taken.append([residual.clone() for residual in residuals])
        return base.decode(x, c_noise, encoding, residuals)

    with patch.object(network.base, "decode", decode):
        for scales in ([1.0, 0.0], [0.0, 1.0], [1.5, -0.5]):
            network.scales = scales
            network(x, c_noise, told)
    for first, second, both in zip(*taken, strict=True):
        torch.testing.assert_close(both, 1.5 * first - 0.5 * second, rtol=1e-5, atol=1e-6)
    assert all(residual.abs().max() > 0 for residual in taken[0])
    network.scales = [0.0, 0.0]
    with patch.object(network.branches[0].copy, "encode", None):
        assert torch.equal(network(x, c_noise, told), alone)


def test_residuals_enter_the_skips_and_the_middle():
    """Of a U-Net by hooks on the stages of the way up, whose input ends in the channels of the skip."""
    base = build("unet deep", SHAPE).eval()
    network = randomised(ControlNet(copy.deepcopy(base), [(1, 5, 6)]))
    x, c_noise = inputs(SHAPE, 2)
    told = controls_for(2, (1, 5, 6))
    branch = network.branches[0]
    hint = branch.hint(told["control"])
    taps = branch.copy.encode(x, c_noise, None, hint).taps
    residuals = [
        torch.nn.functional.conv2d(tap, zero.layer.weight, zero.layer.bias)
        for tap, zero in zip(taps, branch.zeros, strict=True)
    ]
    base.middle[-1].register_forward_hook(lambda module, given, h: h + residuals[-1])
    stages = [stage for level in base.levels for stage in level]
    for stage, residual in zip(stages, reversed(residuals[:-1]), strict=True):
        stage.register_forward_pre_hook(partial(add_behind, residual))
    torch.testing.assert_close(network(x, c_noise, told), base(x, c_noise))
    # What the copy sees is x as the base sees it, and the hint behind its first convolution.
    stem = branch.copy.encoder.stem.register_forward_hook(lambda module, given, h: h + pad_to(hint, h))
    torch.testing.assert_close(branch.copy.encode(x, c_noise).taps, taps)
    stem.remove()


def test_residuals_enter_in_front_of_the_second_half_of_a_transformer():
    torch.manual_seed(0)
    base = DiT(SHAPE, width=8, heads=2, depth=5).eval()
    for parameter in base.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    network = randomised(ControlNet(copy.deepcopy(base), [(1, 5, 6)]))
    x, c_noise = inputs(SHAPE, 2)
    told = controls_for(2, (1, 5, 6))
    residuals = network.branches[0](x, c_noise, None, told["control"])
    assert len(residuals) == len(network.branches[0].copy.blocks) == 2
    for block, residual in zip(base.blocks[2:4], residuals, strict=True):
        block.register_forward_pre_hook(lambda module, given, residual=residual: (given[0] + residual, *given[1:]))
    torch.testing.assert_close(network(x, c_noise, told), base(x, c_noise))


def add_behind(residual, module, given):
    h = given[0].clone()
    h[:, -residual.shape[1] :] += residual
    return h, *given[1:]


def pad_to(hint, h):
    found = torch.zeros_like(h)
    found[:, :, : hint.shape[2], : hint.shape[3]] = hint
    return found


@pytest.mark.parametrize("variant", ["unet", "ncsnpp skips", "linear_attention_unet", "hdit", "dit", "mapped_unet"])
def test_gradients_reach_the_branch_and_only_it(variant):
    """At first the zero convolutions alone, and once these are not zero every weight of the copy and of the hint."""
    network = ControlNet(build(variant, SHAPE, 3), [(2, 5, 6)])
    x, c_noise = inputs(SHAPE, 4)
    told = {"labels": torch.tensor([0, 1, 2, -1]), **controls_for(4, (2, 5, 6))}

    def moved(network):
        network.zero_grad()
        network(x, c_noise, told).square().sum().backward()
        assert all(p.grad is None for p in network.base.parameters())
        return {name for name, p in network.branches.named_parameters() if p.grad is not None and p.grad.any()}

    assert moved(network)
    assert all(".zeros." in name for name in moved(network))
    randomised(network)
    own = {name for name, p in network.branches.named_parameters()}
    assert moved(network) == own


@pytest.mark.parametrize(
    ("control", "hint"),
    [((1, 12, 12), (4, 3, 12)), ((2, 18), (4, 3)), ((1, 8, 8), (4, 8, 8)), ((3, 4, 2), (4, 8, 8)), ((1, 7), (4, 4))],
)
def test_hints_of_any_ratio_lie_where_their_control_does(control, hint):
    """A hint depends on the part of the control at its own place, and no more than a few layers' reach beyond."""
    encoder = HintEncoder(control, hint, (3, 5))
    assert torch.equal(encoder(torch.randn(1, *control)), torch.zeros(1, *hint))
    for parameter in encoder.parameters():
        parameter.data.uniform_(0.1, 0.2)
    given = torch.zeros(1, *control, requires_grad=True)
    found = encoder(given)
    for place in {0, hint[-1] // 2, hint[-1] - 1}:
        (slope,) = torch.autograd.grad(found[0, 0].flatten(0, -2)[0, place] if len(hint) > 2 else found[0, 0, place],
                                       given, retain_graph=True)  # fmt: skip
        line = slope.abs().amax(tuple(range(slope.ndim - 1)))
        center = (place + 0.5) * control[-1] / hint[-1]
        assert abs(int(line.argmax()) + 0.5 - center) <= max(1.0, control[-1] / hint[-1])
        assert line[min(int(center), control[-1] - 1)] > 0
    if control == (2, 18):
        assert [layer.stride[0] for layer in encoder.layers] == [1, 1, 2, 3]


@pytest.mark.parametrize(
    ("control", "sentence"),
    [((1, 5, 5), "5 entries along an axis does not fit the 8"), ((1, 8), "1 axes of space, the items 2")],
)
def test_controls_that_do_not_fit(control, sentence):
    with pytest.raises(ValueError, match=sentence):
        ControlNet(UNet((1, 8, 8), channels=8, num_res_blocks=1), [control])


def test_bases_that_take_none():
    with pytest.raises(ValueError, match="MLP takes no control"):
        ControlNet(MLP((4,)), [(1, 4)])
    with pytest.raises(ValueError, match="depth = 2"):
        ControlNet(DiT((1, 8, 8), width=8, heads=1, depth=1), [(1, 8, 8)])
    around = ControlNet(UNet((1, 8, 8), channels=8, num_res_blocks=1), [(1, 8, 8)])
    with pytest.raises(ValueError, match="has a control itself"):
        ControlNet(around, [(1, 8, 8)])


def small_model(classes=2):
    base = build("unet", (1, 4, 4), classes)
    about = {"control": ([0.5], [0.5])}
    return Denoiser(ControlNet(base, [(1, 4, 4)]), VPSDE(), event_shape=(1, 4, 4),
                    standardization=Standardization(about))  # fmt: skip


def test_a_base_in_latents_is_told_in_data_units():
    """A control of 8 x 8 data is taken down to the 4 x 4 latents that the network sees; the model has all weights of
    the base, those of its autoencoder too."""
    autoencoder = {"name": "linear", "event_shape": [1, 8, 8], "latent_shape": [2, 4, 4]}
    spec = {
        "network": {"name": "unet", "channels": 8, "num_res_blocks": 1},
        "event_shape": [1, 8, 8],
        "num_classes": None,
        "sde": {"name": "vp"},
        "parametrization": "edm",
        "sigma_data": 0.5,
        "transform": {"autoencoder": autoencoder, "outer": {"shift": [0.0], "scale": [1.0], "levels": None}},
        "null_trained": True,
    }
    about = {"control": {"shape": [1, 8, 8], "shift": [0.5], "scale": [0.5]}}
    base = build_denoiser(spec)
    for parameter in base.network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model = build_denoiser(spec | {"conditions": about, "control": {"hint_channels": [4]}})
    model.network.adopt(base.network)
    x, t, control = torch.randn(2, 2, 4, 4), torch.tensor(0.5), torch.rand(2, 1, 8, 8)
    assert torch.equal(model(x, t, {"control": control}), base(x, t))
    own = base.network.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in model.network.branches[0].copy.state_dict().items())
    assert [layer.stride for layer in model.network.branches[0].hint.layers] == [(1, 1), (1, 1), (2, 2)]
    randomised(model.network)
    hint = model.network.branches[0].hint
    hint.register_forward_hook(lambda module, given, h: torch.testing.assert_close(given[0], 2 * control - 1))
    assert (model(x, t, {"control": control}) != base(x, t)).flatten(1).any(1).all()
    assert {*base.state_dict()} - {name.replace("network.base.", "network.") for name in model.state_dict()} == set()


def test_training_moves_the_branch_alone():
    """The base's weights stay bit for bit, and the average is of the branch; labels are dropped, the control not."""
    control = {"control": torch.rand(32, 1, 4, 4)}
    data = Dataset(torch.randn(32, 1, 4, 4), torch.arange(32) % 2, 2, Transform(), control)
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []
    branch = model.network.branches[0]

    def loss(*given):
        return denoising_loss(*given, cond_dropout=1.0)

    branch.register_forward_pre_hook(lambda module, given: seen.append(given[3].isnan().any()))
    trainer = Trainer(model, data, loss, TrainingOptions(steps=3, batch_size=8, lr=1e-2, warmup_steps=0))
    labels, table = [], model.network.base.encoder.embedding.label
    table.register_forward_hook(lambda module, given, h: labels.append(given[0]))
    for _ in range(3):
        trainer.training_step()
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("network.branches.") for name in changed)
    assert all(any(part in name for name in changed) for part in (".copy.", ".hint.", ".zeros."))
    assert {*trainer.ema.model_average.average} == {
        name for name, _ in model.named_parameters() if name.startswith("network.branches.")
    }
    assert not any(seen)
    assert torch.cat(labels).unique().tolist() == [-1]
    for _ in range(2):
        assert not model.network.base.training
        assert branch.copy.training
        # By hand as by a trainer.
        model.eval()
        model.train()


def test_guidance_keeps_the_control_in_both_branches():
    """D(null, control) + w (D(cond, control) - D(null, control)); so it is with a negative without any; by one in which
    it is null, it is guided by as well; and where the control is all there is, null is the base alone."""
    model = small_model()
    randomised(model.network)
    x, t = torch.randn(3, 1, 4, 4), torch.tensor(0.4)
    cond = {"labels": torch.tensor([0, 1, 1]), "control": torch.rand(3, 1, 4, 4)}
    none, nothing = torch.full((3,), -1), torch.full_like(cond["control"], torch.nan)
    for negative, other in (
        (None, cond["control"]),
        ({"labels": none}, cond["control"]),
        (none, cond["control"]),
        ({"labels": none, "control": nothing}, nothing),
    ):
        first, second = model(x, t, cond), model(x, t, {"labels": none, "control": other})
        guided = ClassifierFree(model, cond, 3.0, negative)
        torch.testing.assert_close(guided(x, t), second + 3 * (first - second))
        torch.testing.assert_close(ClassifierFree(model, cond, 0.0, negative)(x, t), second)
    model = small_model(None)
    randomised(model.network)
    alone, own = model(x, t), Conditional(model, {"control": cond["control"]})(x, t)
    guided = ClassifierFree(model, {"control": cond["control"]}, 3.0)
    torch.testing.assert_close(guided(x, t), alone + 3 * (own - alone))
    dropped = drop_conditions(cond, torch.tensor([True, False, True]))
    assert torch.equal(dropped["control"], cond["control"])
    assert dropped["labels"].tolist() == [-1, 1, -1]


def test_controls_of_several_runs_act_together():
    first, second = (randomised(ControlNet(build("unet", SHAPE), [(1, 5, 6)]), seed) for seed in (1, 2))
    both = first.with_branches([second], [1.0, 2.0])
    x, c_noise = inputs(SHAPE, 2)
    told = controls_for(2, (1, 5, 6), (1, 5, 6))
    assert both.conditions == {"control": (1, 5, 6), "control_2": (1, 5, 6)}
    assert first.scales == [1.0]
    assert len(first.branches) == 1
    both.scales = [0.0, 1.0]
    torch.testing.assert_close(both(x, c_noise, told), second(x, c_noise, {"control": told["control_2"]}))
