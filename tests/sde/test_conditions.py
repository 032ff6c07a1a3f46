"""Conditions of every kind: trees, networks that see them, guidance against an exact posterior, data."""

import copy
import re

import pytest
import torch

from samplers import SAMPLERS, generate
from sde import VPSDE, Denoiser, Transform
from sde.condition.binding import bind_condition, expand_rows, rows_of
from sde.condition.standardization import Standardization
from sde.condition.tree import NULL_LABEL, drop_conditions, null_like, restrict_to
from sde.data.dataset import Dataset
from sde.guidance import Autoguidance, ClassifierFree, Conditional
from sde.networks.attention import attend
from sde.networks.embedding import repeat_to
from sde.process.coefficients import expand
from tests.batteries.networks import build, fresh, inputs
from tests.oracles.by_class import Network

SHAPES = {"vector": (3,), "image": (2, 4, 3), "sequence": (5, 2)}
EVENT = (1, 8, 6)
NETWORKS = ("unet", "unet deep", "unet attention", "unet ncsnpp", "ncsnpp", "ncsnpp skips", "dit", "mlp", "hdit",
            "mapped_unet")  # fmt: skip


def tree(count, kinds=("labels", *SHAPES), dtype=torch.float32, seed=0):
    """A condition of these kinds."""
    generator = torch.Generator().manual_seed(seed)
    found = {kind: torch.randn(count, *shape, generator=generator, dtype=dtype) for kind, shape in SHAPES.items()}
    found = {"labels": torch.arange(count) % 4} | found
    return {kind: found[kind] for kind in kinds}


def network(variant, kinds=("labels", *SHAPES), **more):
    conditions = {kind: SHAPES[kind] for kind in kinds if kind in SHAPES}
    return build(variant, EVENT, 4 if "labels" in kinds else None, conditions=conditions, **more).double().eval()


def refused(sentence, function, *arguments, **keys):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        function(*arguments, **keys)


@pytest.mark.parametrize("variant", NETWORKS)
@pytest.mark.parametrize("kinds", [("labels", *SHAPES), ("image",), ("vector", "sequence")], ids="-".join)
def test_every_kind_matters_to_its_row_and_null_is_null(variant, kinds):
    model = network(variant, kinds)
    (x, c_noise), cond = inputs(EVENT, 3, torch.float64), tree(3, kinds, torch.float64)
    plain, null = model(x, c_noise, cond), model(x, c_noise, None)
    torch.testing.assert_close(model(x, c_noise, null_like(cond)), null)
    torch.testing.assert_close(model(x, c_noise, drop_conditions(cond, torch.tensor([False, True, False])))[1], null[1])
    torch.testing.assert_close(model(x[1:2], c_noise[1:2], {k: c[1:2] for k, c in cond.items()}), plain[1:2])
    for kind, c in cond.items():
        other, gone = c.clone(), c.clone()
        other[1] = c[2]
        gone[1] = null_like(gone[1])
        results = [model(x, c_noise, cond | {kind: value}) for value in (c, other, gone)]
        for changed, before in zip(results[1:], (results[0], results[1]), strict=True):
            moved = (changed - before).flatten(1).abs().amax(1) > 1e-6
            assert moved.tolist() == [False, True, False], kind


@pytest.mark.parametrize("variant", NETWORKS)
def test_a_null_row_hides_its_other_values(variant):
    """One NaN makes a vector or an image null; tokens with one are not there, wherever they are."""
    model = network(variant)
    (x, c_noise), cond = inputs(EVENT, 2, torch.float64), tree(2, dtype=torch.float64)
    for kind, place in (("vector", (0, 1)), ("image", (0, 1, 2, 0))):
        partly, whole = cond[kind].clone(), cond[kind].clone()
        partly[place] = torch.nan
        whole[0] = torch.nan
        torch.testing.assert_close(*(model(x, c_noise, cond | {kind: c}) for c in (partly, whole)))
    if variant == "mlp":
        return
    shorter, padded = cond["sequence"][:, :3], cond["sequence"].clone()
    padded[:, 3, 0] = padded[:, 4] = torch.nan
    expected = model(x, c_noise, cond | {"sequence": shorter})
    torch.testing.assert_close(model(x, c_noise, cond | {"sequence": padded}), expected)
    torch.testing.assert_close(model(x, c_noise, cond | {"sequence": padded.flip(1)}), expected)
    assert not torch.allclose(model(x, c_noise, cond), expected)


@pytest.mark.parametrize("variant", [name for name in NETWORKS if name != "mlp"])
def test_tokens_have_no_order(variant):
    model = network(variant, ("sequence",))
    (x, c_noise), cond = inputs(EVENT, 2, torch.float64), tree(2, ("sequence",), torch.float64)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = {"sequence": cond["sequence"][:, order]}
    torch.testing.assert_close(model(x, c_noise, shuffled), model(x, c_noise, cond))


@pytest.mark.parametrize("event", [(2, 12), (1, 4, 6), (1, 4, 2, 4)], ids=str)
@pytest.mark.parametrize("variant", ["unet", "dit", "hdit", "mapped_unet"])
def test_any_number_of_axes(variant, event):
    conditions = {"image": (3, *(size // 2 for size in event[1:])), "sequence": (2, 4), "vector": (2,)}
    model = fresh(variant, event, None, conditions=conditions)
    assert (model(*inputs(event, 2), None) == 0).all(), "the output starts at zero"
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    cond = {kind: torch.randn(2, *shape) for kind, shape in conditions.items()}
    plain = model(*inputs(event, 2), cond)
    assert plain.shape == (2, *event)
    for kind in conditions:
        assert not torch.allclose(model(*inputs(event, 2), cond | {kind: cond[kind].flip(0)}), plain)


@pytest.mark.parametrize("variant", ["unet attention", "dit", "mlp", "hdit", "mapped_unet"])
def test_a_model_without_conditions_is_as_it_was(variant):
    without, with_none = (fresh(variant, EVENT, 4, **more) for more in ({}, {"conditions": {}}))
    assert list(without.state_dict()) == list(with_none.state_dict())
    assert not [name for name in without.state_dict() if "cross" in name or "null" in name]
    added = fresh(variant, EVENT, 4, conditions=SHAPES).state_dict()
    assert without.state_dict().keys() < added.keys()


@pytest.mark.parametrize("variant", ["unet attention", "dit", "mlp", "hdit", "mapped_unet"])
def test_no_parameter_is_idle_even_where_all_rows_are_null(variant):
    model = network(variant).train()
    (x, c_noise), cond = inputs(EVENT, 2, torch.float64), tree(2, dtype=torch.float64)
    mixed = drop_conditions(cond, torch.tensor([True, False]))
    model(x, c_noise, mixed).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # The bias of keys moves all logits alike.
        assert parameter.grad.abs().sum() > 0, name
    model.zero_grad()
    model(x, c_noise, null_like(cond)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters()), "replicas need them all"


@pytest.mark.parametrize("variant", ["unet attention", "dit", "hdit", "mapped_unet"])
def test_recomputed_activations_with_a_context(variant):
    gradients = []
    for checkpointing in (False, True):
        model = network(variant, activation_checkpointing=checkpointing).train()
        model(*inputs(EVENT, 2, torch.float64), tree(2, dtype=torch.float64)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_attention_with_a_mask():
    """Fused or not, softmax(q k^T / sqrt(width)) v over the keys that are there; twice differentiable without."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 4, generator=generator, dtype=torch.float64) for n in (5, 6, 6))
    mask = torch.tensor([[1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 1, 1]]).bool().view(2, 1, 1, 6)
    found = [attend(q, k, v, mask, fused=fused) for fused in (True, False)]
    expected = torch.empty_like(found[0])
    for b in range(2):
        there = mask[b, 0, 0]
        expected[b] = ((q[b] @ k[b, :, there].transpose(1, 2)) / 2).softmax(-1) @ v[b, :, there]
    for one in found:
        torch.testing.assert_close(one, expected)
    q.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda q: attend(q, k, v, mask, fused=False), q)


def test_images_are_repeated():
    image = torch.arange(12.0).view(1, 2, 2, 3)
    large = repeat_to(image, (4, 9))
    assert large.shape == (1, 2, 4, 9)
    torch.testing.assert_close(large, torch.kron(image, torch.ones(2, 3)))
    refused(
        "a condition image of size 2x3 does not fit items of size 4x8: needs as many axes, with sizes that "
        "divide theirs",
        repeat_to, image, (4, 8),
    )  # fmt: skip
    with pytest.raises(ValueError, match="size 3x4 does not fit items of size 8x6"):
        fresh("unet", EVENT, None, conditions={"image": (1, 3, 4)})
    with pytest.raises(ValueError, match="conditions = 'text': needs one of vector, image, sequence"):
        fresh("mlp", EVENT, None, conditions={"text": (3,)})


def test_standardisation_is_in_the_model():
    """Conditions are in data units outside: a model told of 5 c + 3 with that shift and scale is the one told of c."""
    net, cond = network("unet attention"), tree(2, dtype=torch.float64)
    moments = {kind: ([3.0] * n, [5.0] * n) for kind, n in (("vector", 3), ("image", 2), ("sequence", 2))}
    moments["vector"] = [1.0, 2.0, 3.0], [1.0, 0.5, 4.0]
    plain = Denoiser(net, VPSDE(), "edm", 1.0)
    scaled = Denoiser(net, VPSDE(), "edm", 1.0, standardization=Standardization(moments))
    outside = {"labels": cond["labels"]} | {k: 5 * cond[k] + 3 for k in ("image", "sequence")}
    outside["vector"] = cond["vector"] * torch.tensor([1, 0.5, 4]) + torch.tensor([1.0, 2, 3])
    x, t = inputs(EVENT, 2, torch.float64)[0], torch.tensor(0.4, dtype=torch.float64)
    torch.testing.assert_close(scaled(x, t, outside), plain(x, t, cond))
    torch.testing.assert_close(scaled(x, t, null_like(outside)), plain(x, t, None))
    assert scaled.state_dict().keys() == plain.state_dict().keys()
    assert scaled.conditions == SHAPES


class Exact:
    """The posterior mean E[x_0 | x_t, v] of (x_0, v) jointly normal, v (3,), x_0 (2,), and that without v where a row
    of v is null, as the output of a network."""

    def __init__(self, sde):
        generator = torch.Generator().manual_seed(0)
        root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
        self.covariance, self.mean = root @ root.T / 5, torch.randn(5, generator=generator, dtype=torch.float64)
        self.sde = sde

    def posterior(self, x, t, v=None):
        """By conditioning the normal law of (x_0, x_t, v) on the x_t in the columns of x, and on v where there is."""
        a, s = self.sde.alpha(t), self.sde.sigma(t)
        c, m = self.covariance, self.mean.unsqueeze(1)
        own, cross = c[:2, :2], c[:2, 2:]
        noisy = a**2 * own + s**2 * torch.eye(2, dtype=torch.float64)
        if v is None:
            return m[:2] + a * own @ torch.linalg.solve(noisy, x - a * m[:2])
        joint = torch.cat([torch.cat([noisy, a * cross], 1), torch.cat([a * cross.T, c[2:, 2:]], 1)])
        seen = torch.cat([x - a * m[:2], (v.unsqueeze(1) - m[2:]).expand(3, x.shape[1])])
        return m[:2] + torch.cat([a * own, cross], 1) @ torch.linalg.solve(joint, seen)

    def __call__(self, x, t, cond=None):
        vectors = [None] * len(x) if cond is None else [None if v.isnan().any() else v for v in cond["vector"]]
        return torch.cat([self.posterior(x[[i]].T, t[i], v).T for i, v in enumerate(vectors)])


@pytest.fixture
def exact(process):
    law = Exact(process)
    net = Network(process, None, 0.7)
    net.num_classes, net.conditions = None, {"vector": (3,)}

    def output(x, t, cond):
        d, a, s = 0.7, process.alpha(t), process.sigma(t)
        skip, out = a * d**2 / (s**2 + (a * d) ** 2), s * d * (s**2 + (a * d) ** 2).rsqrt()
        return (law(x, t, cond) - expand(skip, x) * x) / expand(out, x)

    net.function = output
    return law, Denoiser(net, process, "edm", 0.7)


@pytest.fixture
def batch(process):
    generator = torch.Generator().manual_seed(1)
    t = torch.rand(5, generator=generator, dtype=torch.float64) * (process.t_max - process.t_min) + process.t_min
    v = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    return torch.randn(5, 2, generator=generator, dtype=torch.float64), t, v


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5, -1.0])
def test_guidance_by_a_vector_is_exact(exact, batch, scale):
    law, model = exact
    x, t, v = batch
    with_v, without = law(x, t, {"vector": v}), law(x, t)
    expected = without + scale * (with_v - without)
    for batched in (True, False):
        guided = ClassifierFree(model, {"vector": v}, scale, batched=batched)
        torch.testing.assert_close(guided(x, t), expected, rtol=1e-6, atol=1e-6)
        part = torch.tensor([3, 1])
        torch.testing.assert_close(guided.rows(part)(x[part], t[part]), expected[part], rtol=1e-6, atol=1e-6)
    negative = v.flip(0)
    away = law(x, t, {"vector": negative})
    guided = ClassifierFree(model, {"vector": v}, scale, {"vector": negative})
    torch.testing.assert_close(guided(x, t), away + scale * (with_v - away), rtol=1e-6, atol=1e-6)
    weak = Conditional(model, {"vector": negative})
    guided = Autoguidance(Conditional(model, {"vector": v}), weak, scale)
    torch.testing.assert_close(guided(x, t), away + scale * (with_v - away), rtol=1e-6, atol=1e-6)


def test_one_batch_mixes_null_rows(exact, batch):
    law, model = exact
    x, t, v = batch
    mixed = drop_conditions({"vector": v}, torch.tensor([True, False, False, True, False]))
    found = Conditional(model, mixed)(x, t)
    expected = torch.where(torch.tensor([1, 0, 0, 1, 0]).bool()[:, None], law(x, t), law(x, t, {"vector": v}))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_samples_have_the_conditional_law():
    """DDIM's affine map of the exact model takes unit points to the conditional mean and covariance."""
    sde = VPSDE()
    law = Exact(sde)

    class Model(Denoiser):
        conditions, num_classes = {"vector": (3,)}, None

        def forward(self, x, t, cond=None):
            return law.posterior(x.T.double(), t, cond["vector"][0]).T.to(x)

    v = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    model = Conditional(Model(torch.nn.Linear(1, 1).double(), sde), {"vector": v[None]})
    x = generate(model, SAMPLERS["heun"](), 400, (2,), steps=20).x.double()
    c, m = law.covariance, law.mean
    gain = c[:2, 2:] @ torch.linalg.inv(c[2:, 2:])
    mean, covariance = m[:2] + gain @ (v - m[2:]), c[:2, :2] - gain @ c[2:, :2]
    spread = covariance.diagonal().sqrt()
    assert ((x.mean(0) - mean).abs() < 4 * spread / 20).all()
    torch.testing.assert_close(torch.cov(x.T), covariance, rtol=0.25, atol=0.05)


def test_rows_and_single_rows():
    net = network("mlp")
    model = Denoiser(net, VPSDE(), "edm", 1.0)
    cond = tree(4, dtype=torch.float64)
    bound = bind_condition(cond | {"vector": cond["vector"][:1]}, model)
    part = rows_of(bound, torch.tensor([2, 0]))
    assert {kind: len(c) for kind, c in part.items()} == {"labels": 2, "vector": 1, "image": 2, "sequence": 2}
    fitted = expand_rows(part, torch.zeros(2, *EVENT))
    assert torch.equal(fitted["vector"], cond["vector"][[0, 0]])
    assert torch.equal(fitted["image"], cond["image"][[2, 0]])
    labeled = Denoiser(network("mlp", ("labels",)), VPSDE())
    for given in ({"labels": torch.tensor(2)}, torch.tensor(2)):
        alone = bind_condition(given, labeled)
        assert alone.keys() == {"labels"}
        assert torch.equal(alone["labels"], torch.tensor([2]))
    assert restrict_to(cond, model).keys() == cond.keys()
    assert restrict_to(cond, Denoiser(network("mlp", ("image",)), VPSDE())).keys() == {"image"}
    assert restrict_to(cond, Denoiser(network("mlp", ()), VPSDE())) is None


def test_dropping_is_joint():
    dropped = torch.tensor([True, False, True])
    for kind, c in drop_conditions(tree(3), dropped).items():
        null = c == NULL_LABEL if kind == "labels" else c.isnan().flatten(1).all(1)
        assert torch.equal(null, dropped)


def test_refusals():
    everything = Denoiser(network("mlp"), VPSDE())
    cond, takes = tree(3), "the model is conditioned on labels and vector and image and sequence"
    two = Denoiser(network("mlp", ("labels", "image")), VPSDE())
    for model, given, sentence in (
        (Denoiser(network("mlp", ()), VPSDE()), {"image": cond["image"]},
         "a condition (image) was given, but the model is unconditional: leave it out"),
        (everything, cond["labels"], f"the condition has no 'vector', but {takes}: give it, NaN in rows that "
         "have none"),
        (two, {"image": cond["image"]}, "the condition has no 'labels', but the model is conditioned on labels and "
         "image: give it, -1 in rows that have none"),
        (two, cond, "the condition has 'vector', but the model is conditioned on labels and image: leave it out"),
        (everything, cond | {"text": cond["vector"]}, f"the condition has 'text', but {takes}: leave it out"),
        (everything, cond | {"vector": torch.zeros(3, 4)},
         "the condition 'vector' has shape (3, 4): the model takes (B, 3)"),
        (everything, cond | {"image": torch.zeros(3, 2, 4)},
         "the condition 'image' has shape (3, 2, 4): the model takes (B, 2, 4, 3)"),
        (everything, cond | {"sequence": torch.zeros(3, 5, 3)},
         "the condition 'sequence' has shape (3, 5, 3): the model takes (B, any length, 2)"),
        (everything, cond | {"vector": torch.ones(3, 3).long()},
         "the condition 'vector' has type torch.int64: it takes floats, with NaN for null"),
        (everything, cond | {"labels": torch.zeros(3)}, "labels must be integers of shape (B,); got torch.float32 of "
         "shape (3,)"),
        (everything, cond["vector"], "a condition that is a plain tensor holds labels, which are integers; got "
         'torch.float32: name the kind of others, as in {"vector": cond}'),
        (everything, cond | {"labels": torch.tensor([1, 2])}, "the conditions have other numbers of rows (labels has "
         "2, vector has 3, image has 3, sequence has 3): needs one row per sample in each"),
    ):  # fmt: skip
        refused(sentence, Conditional, model, given)
    refused("the condition 'labels' has 3 rows, x has 2: needs one row per sample",
            everything, torch.zeros(2, *EVENT).double(), torch.tensor(0.5), cond)  # fmt: skip
    with pytest.raises(ValueError, match="no 'vector'"):
        network("unet")(*inputs(EVENT, 3, torch.float64), cond["labels"])


def test_data_hold_and_move_conditions():
    cond = tree(6, tuple(SHAPES))
    cond["vector"][2] = torch.nan
    data = Dataset(torch.randn(6, *EVENT), torch.arange(6) % 4, 4, Transform(), cond)
    index = torch.tensor([4, 2])
    x, found = data.batch(index)
    assert torch.equal(x, data.items[index])
    assert {kind: tuple(c.shape) for kind, c in found.items()} == {
        "labels": (2,), "vector": (2, 3), "image": (2, 2, 4, 3), "sequence": (2, 5, 2)}  # fmt: skip
    assert torch.equal(found["image"], cond["image"][index])
    mean, std = data.condition_moments["vector"]
    rows = cond["vector"][[0, 1, 3, 4, 5]].double()
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(std, rows.std(0, correction=0))
    mean, std = data.condition_moments["sequence"]
    torch.testing.assert_close(mean, cond["sequence"].double().mean((0, 1)))
    mean, std = data.condition_moments["image"]
    torch.testing.assert_close(std, cond["image"].double().transpose(0, 1).flatten(1).std(1, correction=0))
    moved = data.to(torch.device("cpu"))
    assert torch.equal(moved.batch(index)[1]["sequence"], found["sequence"])
    assert copy.copy(data).condition_shapes == SHAPES
    refused("'vector' has 2 rows for 6 items: needs one per item",
            Dataset, data.items, None, None, Transform(), {"vector": torch.zeros(2, 3)})  # fmt: skip


@pytest.mark.parametrize("variant", ["unet", "dit", "hdit", "mapped_unet"])
def test_derivatives_through_a_context(variant):
    """What exact traces and guidance differentiate: forward mode and second order agree with central differences."""
    model = network(variant, ("sequence",))
    (x, c_noise), cond = inputs(EVENT, 1, torch.float64), tree(1, ("sequence",), torch.float64)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)

    def total(x):
        return model(x, c_noise, cond).square().sum()

    def slope(x):
        (gradient,) = torch.autograd.grad(total(x), x, create_graph=True)
        return (gradient * direction).sum()

    _, forward = torch.func.jvp(total, (x,), (direction,))
    x = x.requires_grad_()
    (curvature,) = torch.autograd.grad(slope(x), x)
    step = 1e-5 * direction
    with torch.no_grad():
        torch.testing.assert_close(forward, (total(x + step) - total(x - step)) / 2e-5, rtol=1e-5, atol=1e-5)
    ends = [slope((x + sign * step).detach().requires_grad_()) for sign in (1, -1)]
    torch.testing.assert_close((curvature * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-4, atol=1e-4)
