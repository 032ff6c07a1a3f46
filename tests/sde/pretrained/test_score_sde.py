"""score_sde's checkpoints: recorded outputs, published names, and every architecture read back from its tensors."""

import math

import pytest
import torch

from sde import VESDE, VPSDE, SubVPSDE
from sde.pretrained import Facts, load_pretrained, read_pretrained, score_sde
from sde.pretrained.contents import Contents
from sde.pretrained.foreign import empty_network
from sde.pretrained.names.song import score_sde_names
from sde.process import expand
from tests.oracles.foreign import fixture, key_list, key_lists, relative
from tests.oracles.score_sde_file import DISCRETE, NCSNPP, SMALL, VE, ours, written

FIXTURES = ("score_sde-ve-ncsnpp-continuous", "score_sde-vp-ddpm-discrete")
SETTINGS = ("model", "data", "sde", "continuous")


@pytest.mark.parametrize("weights", ["raw", "ema"])
@pytest.mark.parametrize("name", FIXTURES)
def test_recorded_outputs(name, weights):
    case = fixture(name)
    model = load_pretrained(
        case.folder / "checkpoint_1.pth", weights=weights, facts={key: case.about[key] for key in SETTINGS}
    )
    x, labels, t = (case.reference[key] for key in ("x", "labels", "t"))
    key = "model" if weights == "raw" else "ema"
    continuous = case.about["continuous"]
    with torch.no_grad():
        output = model.network(x, labels.log() if continuous else labels, None)
        # Their discrete score divides by the table's entry at the label cut to an integer.
        t = t.double() if continuous else model.sde.times[labels.long()]
        sigma = expand(model.sde.sigma(t), x)
        score = output if continuous else -output / sigma
        denoised = (x + sigma**2 * score) / expand(model.sde.alpha(t), x)
    assert relative(output, case.reference[f"net_{key}"]) < 1e-5
    assert relative(score, case.reference[f"score_{key}"]) < 1e-5
    if continuous:
        assert relative(model(x, t), denoised) < 1e-5
        assert relative(model.score(x, t), case.reference[f"score_{key}"]) < 1e-5
    else:
        told = model.coefficients(case.reference["t"].double())[3]
        torch.testing.assert_close(told, labels.double(), rtol=1e-6, atol=0)


def meta(published):
    """A published checkpoint on the meta device, whose average is named by its shapes alone."""
    tensors = {name: torch.empty(shape, device="meta") for name, shape, _ in published["tensors"]}
    model, config = dict(tensors), published["config"]
    ends = math.log(config["sigma_max"]), math.log(config["sigma_min"])
    model["module.sigmas"] = torch.linspace(*ends, config["num_scales"], dtype=torch.float64).exp()
    absent = {"module.sigmas", *(f"module.{name}" for name in published["frozen"])}
    shadow = [value for name, value in tensors.items() if name not in absent]
    return Contents("checkpoint_8.pth", "torch", {"model": model, "ema": {"shadow_params": shadow}, "step": 1})


@pytest.mark.parametrize("name", key_lists("score_sde_pytorch"))
def test_published_names(name):
    """One to one: ``read`` refuses tensors without a place here, and places without one."""
    published = key_list(name)
    contents = meta(published)
    assert score_sde.recognizes(contents)
    facts = {"model": published["config"], "data": published["data"], "training": published["training"]}
    found = score_sde.read(contents, "ema", Facts(facts, score_sde.OPTIONS))
    network = empty_network(found.network, found.event_shape, None)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert {key: value.shape for key, value in found.state.items()} == shapes
    used = [name for key, there in score_sde_names(network).items() if key in shapes for name in there.names]
    assert sorted(used) == sorted(name.removeprefix("module.") for name, *_ in published["tensors"][1:])
    trained = sum(value.numel() for value in network.parameters())
    frozen = sum(math.prod(shape) for name, shape, _ in published["tensors"] if name[7:] in published["frozen"])
    assert trained + frozen == published["n_params"]


CASES = {
    "ddpm": {"name": "ddpm", "ch_mult": (1, 1, 2), "num_res_blocks": 2},
    "ddpm without convolutions": {"name": "ddpm", "resamp_with_conv": False, "continuous": False},
    "ddpm on ve": {"name": "ddpm", "sde": "vesde", "continuous": False, "scale_by_sigma": True},
    "ddpm++": NCSNPP | {"fir": False, "sde": "subvpsde"},
    "ddpm++ of ddpm blocks": NCSNPP | {"resblock_type": "ddpm", "fir": False, "skip_rescale": False},
    "ncsn++ on vp": NCSNPP | {"progressive_input": "residual", "ch_mult": (2, 2), "attn_resolutions": (8,)},
    "ncsn++ on ve": NCSNPP | VE | {"progressive_input": "residual", "num_res_blocks": 2},
    "ncsn++ discrete": NCSNPP | VE | {"progressive_input": "residual", **DISCRETE},
    "skips": NCSNPP | VE | {"progressive_input": "input_skip", "progressive": "output_skip", "ch_mult": (1, 1, 2)},
    "joined": NCSNPP | {"progressive_input": "input_skip", "progressive_combine": "cat", "attn_resolutions": ()},
    "residual output": NCSNPP | {"progressive": "residual", "resblock_type": "ddpm", "fir_kernel": (1, 1)},
    "one level": NCSNPP | {"ch_mult": (2,), "attn_resolutions": (8,), "num_res_blocks": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_architectures_are_read_off_tensors(case, tmp_path):
    facts = SMALL | CASES[case]
    network, path = ours(facts), tmp_path / "checkpoint_1.pth"
    written(path, network, facts)
    found = read_pretrained(path, weights="raw", facts=facts)
    model = found.build()
    x, c_noise = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 11.0])
    with torch.no_grad():
        torch.testing.assert_close(model.network(x, c_noise, None), network(x, c_noise, None))
        for value in network.parameters():
            value *= 2
        averaged = load_pretrained(path, facts=facts)
        torch.testing.assert_close(averaged.network(x, c_noise, None), network(x, c_noise, None))


@pytest.mark.parametrize(
    ("case", "sde", "told"),
    [
        ("ncsn++ on vp", VPSDE, lambda sde, t: 999 * t),
        ("ddpm++", SubVPSDE, lambda sde, t: 999 * t),
        ("ddpm without convolutions", None, lambda sde, t: 39 * t),
        ("ncsn++ on ve", VESDE, lambda sde, t: sde.sigma(t).log()),
        ("ncsn++ discrete", VESDE, lambda sde, t: (39 * (1 - t)).round()),
    ],
)
def test_processes(case, sde, told, tmp_path):
    """The process, what its network is told, and the sign and scale of its score."""
    facts = SMALL | CASES[case]
    written(tmp_path / "checkpoint_1.pth", ours(facts), facts)
    model = load_pretrained(tmp_path / "checkpoint_1.pth", weights="raw", facts=facts)
    t = torch.tensor([0.1, 0.48, 0.9], dtype=torch.float64)
    torch.testing.assert_close(model.coefficients(t)[3], told(model.sde, t))
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        output = model.network(x, told(model.sde, t).float(), None)
        alpha, sigma = (expand(v, x) for v in (model.sde.alpha(t), model.sde.sigma(t)))
        score = output if facts["sde"] == "vesde" else -output / sigma
        torch.testing.assert_close(model(x, t), (x + sigma**2 * score) / alpha, rtol=1e-4, atol=1e-4)
    if sde is not None:
        assert type(model.sde) is sde
    else:
        # alpha^2 is the product of 1 - beta, with betas of a line from beta_min / N to beta_max / N.
        betas = torch.linspace(0.1 / 40, 20 / 40, 40, dtype=torch.float64)
        torch.testing.assert_close(model.sde.alpha(model.sde.times) ** 2, (1 - betas).cumprod(0))
    low = 0 if not facts["centered"] else -1
    torch.testing.assert_close(model.transform.encode(torch.tensor([[0.5], [255.5]])), torch.tensor([[low], [1.0]]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"nf": 16}, r"facts: nf = 16, but the file has 8"),
        ({"ch_mult": (1, 1)}, r"facts: ch_mult = \(1, 1\), but the file has \[1, 2\]"),
        ({"attn_resolutions": (8,)}, r"facts: attn_resolutions = \(8,\), but the file has \[4\]"),
        ({"progressive": "residual"}, "facts: progressive = 'residual', but the file has 'none'"),
        ({"num_scales": 10}, "facts: num_scales = 10, but the file has 40"),
        ({"sigma_max": 90}, "facts: sigma_max = 90, but the file has 50.0"),
        ({"fir": None}, "facts: fir is needed, whether a filter comes before halving"),
        ({"skip_rescale": None}, "facts: skip_rescale is needed, whether residual sums"),
        ({"centered": None}, "facts: centered is needed"),
        ({"sde": "rectified"}, "facts: sde = 'rectified': needs one of vesde, vpsde, subvpsde"),
        ({"nonlinearity": "elu"}, "facts: nonlinearity = 'elu': networks with 'swish' are read"),
        ({"sde": "vesde"}, "facts: continuous = True: on a VE process networks with positional embedding are discrete"),
        ({"channels": 3}, "facts: 'channels' is no option of this source"),
    ],
)
def test_contradictions_and_gaps(change, sentence, tmp_path):
    facts = SMALL | CASES["ddpm++"] | {"sde": "vpsde"}
    path = tmp_path / "checkpoint_1.pth"
    written(path, ours(facts), facts)
    facts = {name: value for name, value in (facts | change).items() if value is not None}
    with pytest.raises(ValueError, match=sentence):
        load_pretrained(path, facts=facts)


def test_averages_that_are_not_there_or_do_not_fit(tmp_path):
    facts, path = SMALL | CASES["ddpm++"], tmp_path / "checkpoint_1.pth"
    network = ours(facts)
    written(path, network, facts)
    count = len(torch.load(path)["ema"]["shadow_params"])
    for ema, sentence in (
        (None, "weights = 'ema': the file has no average, take 'raw'"),
        ({"shadow_params": [torch.zeros(2)]}, f"the average has 1 tensors, the model {count}"),
        (
            {"shadow_params": [torch.zeros(2)] * count},
            r"the average has shape \(2,\) where the model has all_modules.0",
        ),
    ):
        written(path, network, facts, ema=ema)
        with pytest.raises(ValueError, match=sentence):
            load_pretrained(path, facts=facts)


def test_tensors_that_do_not_fit(tmp_path):
    facts, path = SMALL | CASES["ddpm++"], tmp_path / "checkpoint_1.pth"
    written(path, ours(facts), facts)
    held = torch.load(path)
    held["model"]["module.all_modules.3.Conv_9.weight"] = torch.zeros(1)
    torch.save(held, path)
    with pytest.raises(ValueError, match=r"do not fit the facts: it has without a place here all_modules\.3\.Conv_9"):
        load_pretrained(path, weights="raw", facts=facts)
    torch.save({"model": {"module.all_modules.0.weight": torch.zeros(2, 2)}}, path)
    with pytest.raises(ValueError, match="its tensors are of neither `ddpm` nor `ncsnpp`"):
        load_pretrained(path, weights="raw", facts=facts)
