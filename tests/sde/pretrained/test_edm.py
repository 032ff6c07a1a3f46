"""EDM's pickles: recorded outputs, published names, every preconditioning by its formula, and what is refused."""

import math
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from samplers import GRIDS, SAMPLERS, sample
from sde.guidance import Conditional
from sde.networks import NETWORKS
from sde.pretrained import Facts, edm, load_pretrained, read_pretrained
from sde.pretrained.contents import Contents
from sde.pretrained.foreign import empty_network
from sde.pretrained.names.song import song_unet_names
from sde.pretrained.plain import Plain
from sde.process import expand
from tests.batteries.networks import randomise
from tests.oracles.foreign import fixture, key_list, key_lists, relative

FIXTURES = ("edm-baseline-vp", "edm-ddpmpp-cond", "edm-ncsnpp-uncond")


@pytest.mark.parametrize("name", FIXTURES)
def test_recorded_outputs(name):
    case = fixture(name)
    model = load_pretrained(case.folder / "network-snapshot-000001.pkl", facts=case.about["kwargs"])
    x, sigma = case.reference["x"], case.reference["sigma"]
    labels = case.reference["y"].argmax(1) if "y" in case.reference else None
    with torch.no_grad():
        denoised = model(expand(sigma, x) * x, model.sde.t_of_noise_level(sigma), labels)
    assert relative(denoised, case.reference["D"]) < 1e-5
    if "heun6" not in case.reference:
        return
    latents = case.reference["latents"]
    bound = model if labels is None else Conditional(model, labels[: len(latents)])
    times = GRIDS["karras"](model.sde, 5)
    found = sample(bound, SAMPLERS["heun"](), latents * model.sde.prior_std(), times)
    assert relative(found, case.reference["heun6"]) < 1e-4


def module_of(tensors, buffers=()):
    """The Plain of a module with these tensors."""
    root = Plain()
    for name, value in tensors.items():
        place, *path = root, *name.split(".")
        for part in path[:-1]:
            place = place.state.setdefault("_modules", {}).setdefault(part, Plain())
        place.state.setdefault("_buffers" if name in buffers else "_parameters", {})[path[-1]] = value
    return root


def of_song(name):
    return key_list(name)["config"]["model_type"] == "SongUNet"


@pytest.mark.parametrize("name", [name for name in key_lists("edm") if of_song(name)])
def test_published_names(name):
    published = key_list(name)
    tensors = {key: torch.empty(shape, device="meta") for key, shape, _ in published["tensors"]}
    net = module_of(tensors, published["buffers"])
    options = dict(published["config"])
    net.kind = options.pop("cls")
    net.state["_init_kwargs"] = options
    found = edm.read(Contents("network-snapshot.pkl", "pickle", {"ema": net}), "ema", Facts(options, edm.OPTIONS))
    size = options["img_resolution"]
    network = empty_network(found.network, found.event_shape, found.num_classes)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert {key: value.shape for key, value in found.state.items()} == shapes
    used = [name for key, there in song_unet_names(network, size).items() if key in shapes for name in there.names]
    given = [key.removeprefix("model.") for key in tensors if not key.endswith("resample_filter")]
    assert sorted(used) == sorted(given)
    assert sum(value.numel() for value in network.parameters()) == published["n_params"]
    ends = published["scalars"]["sigma_min"], published["scalars"]["sigma_max"]
    assert (found.sde.sigma_min, found.sde.sigma_max) == pytest.approx((max(ends[0], 0.002), min(ends[1], 80)))


class Persistent:
    """An object as EDM pickles it: a text of code, the name of a class, and attributes."""

    def __init__(self, kind, state):
        self.kind, self.state = kind, state

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": self.kind}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta | {"state": self.state},)


@pytest.fixture
def persistence(monkeypatch):
    """EDM's module of that name, for as long as a pickle is written."""
    module = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("nothing of a pickle is run")

    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    util = types.ModuleType("dnnlib.util")
    util.EasyDict = type("EasyDict", (dict,), {"__module__": util.__name__, "__getattr__": dict.__getitem__})
    monkeypatch.setitem(sys.modules, "dnnlib", types.ModuleType("dnnlib"))
    monkeypatch.setitem(sys.modules, "dnnlib.util", util)
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)


def persistent(network, size, kind, options, attributes):
    """The object of a preconditioned SongUNet with the weights of our network."""
    root = nn.Module()
    for key, there in song_unet_names(network, size).items():
        if key in network.state_dict():
            place, *path = root, *there.name.split(".")
            for part in path[:-1]:
                if part not in place._modules:
                    place.add_module(part, nn.ModuleDict())
                place = place._modules[part]
            place.register_parameter(path[-1], nn.Parameter(there.back(network.state_dict()[key])))
    taps = torch.tensor(options.get("resample_filter", [1, 1]), dtype=torch.float32)
    root._modules["enc"].register_buffer("resample_filter", taps.ger(taps)[None, None] / taps.sum().square())
    model = Persistent("SongUNet", dict(vars(root)) | {"label_dropout": options.get("label_dropout", 0)})
    state = vars(nn.Module()) | {"_modules": {"model": model}, "_init_args": (), "_init_kwargs": options} | attributes
    return Persistent(kind, state)


PARTS = {"standard": "none", "skip": "skip", "residual": "residual"}
SIZE, CLASSES = 8, 3
CASES = {
    "VPPrecond": {"model_type": "SongUNet", "epsilon_t": 1e-4, "beta_d": 18.0},
    "VEPrecond": {"encoder_type": "residual", "embedding_type": "fourier", "resample_filter": [1, 3, 3, 1]},
    "iDDPMPrecond": {"model_type": "SongUNet", "M": 100, "decoder_type": "skip", "encoder_type": "skip"},
    "EDMPrecond": {"model_type": "SongUNet", "sigma_data": 0.7, "channel_mult_noise": 2, "augment_dim": 9},
}


def made(kind, **more):
    """Options of EDM's, and our network of them."""
    options = {"img_resolution": SIZE, "img_channels": 2, "label_dim": CLASSES, "model_channels": 8, "use_fp16": True,
               "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4], **CASES[kind], **more}  # fmt: skip
    torch.manual_seed(0)
    network = NETWORKS["ncsnpp"](
        (2, SIZE, SIZE), options["label_dim"] or None, channels=8, num_res_blocks=1, attention_resolutions=(4,),
        fir_kernel=tuple(options.get("resample_filter", (1, 1))), features_mult=options.get("channel_mult_noise", 1),
        progressive_input=PARTS[options.get("encoder_type", "standard")], augment_dim=options.get("augment_dim", 0),
        progressive_output=PARTS[options.get("decoder_type", "standard")], learned_variance=kind == "iDDPMPrecond",
        embedding_type=options.get("embedding_type", "positional"),
    )  # fmt: skip
    return options, randomise(network).float()


def written(path, kind, network, options, **more):
    """A pickle as EDM's training writes it, with more beside the network."""
    loss = Persistent("EDMLoss", {"P_mean": -1.2, "_init_kwargs": {}})
    pipe = Persistent("AugmentPipe", {"p": 0.12, "Hz_fbank": np.eye(3), "_init_kwargs": {"xflip": 1e8}})
    easy = sys.modules["dnnlib.util"].EasyDict
    held = {"ema": persistent(network, SIZE, kind, options, {}), "loss_fn": loss, "augment_pipe": pipe,
            "dataset_kwargs": easy(path="data.zip", use_labels=True), "training_set_kwargs": easy(),
            "device": torch.device("cpu"), "step": np.int64(3), "size": torch.Size([3]), **more}  # fmt: skip
    path.write_bytes(pickle.dumps(held, protocol=4))


def chain_levels(steps):
    """u_0 to u_(M-1) of Karras et al. 2022, table 1: from u_M = 0 by ratios of cosines, which are at least C_1."""
    levels, bars = [0.0], [math.sin(0.5 * math.pi * j / steps / 1.008) ** 2 for j in range(steps + 1)]
    for j in range(steps, 0, -1):
        levels.append(math.sqrt((levels[-1] ** 2 + 1) / max(bars[j - 1] / bars[j], 0.001) - 1))
    return levels[:0:-1]


def told(kind, options, sigma):
    """(c_skip, c_out, c_in, c_noise) of Karras et al. 2022, table 1."""
    if kind == "EDMPrecond":
        data = options["sigma_data"]
        total = sigma**2 + data**2
        return data**2 / total, sigma * data / total.sqrt(), total**-0.5, sigma.log() / 4
    if kind == "VEPrecond":
        return 1, sigma, 1, (sigma / 2).log()
    if kind == "VPPrecond":
        low, rise = 0.1, options["beta_d"]
        t = ((low**2 + 2 * rise * (1 + sigma**2).log()).sqrt() - low) / rise
        return 1, -sigma, (sigma**2 + 1) ** -0.5, 999 * t
    steps, table = options["M"], torch.tensor([*chain_levels(options["M"]), 0.0], dtype=torch.float64)
    nearest = (sigma[:, None] - table).abs().argmin(1)
    return 1, -sigma, (sigma**2 + 1) ** -0.5, (steps - 1 - nearest).double()


@pytest.mark.parametrize("kind", CASES)
def test_preconditionings(kind, persistence, tmp_path):
    options, network = made(kind)
    path = tmp_path / "network-snapshot-000002.pkl"
    written(path, kind, network, options)
    model = load_pretrained(path)
    x, sigma = torch.randn(4, 2, SIZE, SIZE), torch.tensor([0.05, 0.31, 4.0, 40.0], dtype=torch.float64)
    labels = torch.tensor([0, 2, -1, 1])
    x = expand(sigma, x) * x
    c_skip, c_out, c_in, c_noise = (
        expand(c, x) if isinstance(c, torch.Tensor) else c for c in told(kind, options, sigma)
    )
    with torch.no_grad():
        output = network(c_in * x, c_noise.flatten(), {"labels": labels})
        found = model(x, model.sde.t_of_noise_level(sigma), labels)
    torch.testing.assert_close(found, c_skip * x + c_out * output, rtol=1e-4, atol=1e-5 * sigma.max().item())
    assert model.num_classes == CLASSES
    assert not model.null_trained
    assert model.event_shape == (2, SIZE, SIZE)
    torch.testing.assert_close(model.transform.encode(torch.tensor([[0.5], [255.5]])), torch.tensor([[-1.0], [1.0]]))


def test_levels_of_a_chain(persistence, tmp_path):
    options, network = made("iDDPMPrecond")
    written(tmp_path / "net.pkl", "iDDPMPrecond", network, options)
    found = read_pretrained(tmp_path / "net.pkl")
    numbers = [found.noise_input(found.sde.level(t), found.sde) for t in found.levels]
    assert numbers == [*range(int(numbers[0]), -1, -1)], "each is a step, and the last the first of the chain"
    wanted = [level for level in chain_levels(options["M"]) if 0.002 <= level <= 80]
    torch.testing.assert_close(found.sde.noise_level(found.levels), torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize(("dropout", "classes", "trained"), [(0, 0, True), (0.1, 3, True), (0, 3, False)])
def test_null_is_trained_by_dropping_labels(dropout, classes, trained, persistence, tmp_path):
    options, network = made("EDMPrecond", label_dim=classes, label_dropout=dropout)
    written(tmp_path / "net.pkl", "EDMPrecond", network, options)
    assert load_pretrained(tmp_path / "net.pkl").null_trained is trained


def test_what_is_refused(persistence, tmp_path):
    path = tmp_path / "net.pkl"
    options, network = made("EDMPrecond")
    written(path, "EDMPrecond", network, options)
    for keys, sentence in (
        ({"weights": "raw"}, "weights = 'raw': EDM's pickles hold the average alone"),
        ({"facts": {"model_channels": 16}}, "facts: model_channels = 16, but the file has 8"),
        ({"facts": {"cls": "VPPrecond"}}, "facts: cls = 'VPPrecond', but the file has 'EDMPrecond'"),
        ({"facts": {"nf": 16}}, "facts: 'nf' is no option of this source"),
        ({"source": "score_sde"}, "no file of score_sde: it looks like one of edm"),
    ):
        with pytest.raises(ValueError, match=sentence):
            load_pretrained(path, **keys)
    written(path, "EDMPrecond", network, options | {"num_blocks": 2})
    with pytest.raises(ValueError, match=r"do not fit the facts: the file lacks .*block1"):
        load_pretrained(path)
    written(path, "EDMPrecond", network, options | {"model_type": "VisionTransformer"})
    with pytest.raises(ValueError, match="model_type = 'VisionTransformer': EDM's networks that are read are SongUNet"):
        load_pretrained(path)
    written(path, "EDMPrecond", network, options, hook=eval)
    with pytest.raises(ValueError, match=r"it names builtins\.eval"):
        load_pretrained(path)


def test_filters_are_those_of_the_option(persistence, tmp_path):
    """f f^T / (sum f)^2 in the file: other taps in the option would be another network."""
    path = tmp_path / "network-snapshot-000002.pkl"
    options, network = made("VEPrecond")
    written(path, "VEPrecond", network, options)
    model = load_pretrained(path)
    content = path.read_bytes()
    theirs, other = (
        torch.tensor(taps).ger(torch.tensor(taps)) / 64 for taps in ([1.0, 3.0, 3.0, 1.0], [1.0, 2.0, 4.0, 1.0])
    )
    assert content.count(theirs.numpy().tobytes()) == 1
    path.write_bytes(content.replace(theirs.numpy().tobytes(), other.numpy().tobytes()))
    assert model.network.options.taps == (1, 3, 3, 1)
    with pytest.raises(
        ValueError, match=r"filter .*resample_filter is of taps in the ratio \[0.125, 0.25, 0.5, 0.125\]"
    ):
        load_pretrained(path)
