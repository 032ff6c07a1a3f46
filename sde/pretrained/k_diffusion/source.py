"""k-diffusion's image models: the U-Net image_v1, and the hourglass transformer image_transformer_v2."""

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sde.pretrained.contents import Contents
from sde.pretrained.facts import MISSING, Facts, Kind, kinds_by_name
from sde.pretrained.foreign import AS_PUBLISHED, Foreign, pixels
from sde.pretrained.k_diffusion.settings import Settings
from sde.pretrained.k_diffusion.transformer import read_transformer
from sde.pretrained.k_diffusion.unet import read_unet
from sde.process.ve import VESDE

PROJECT = "k-diffusion (Katherine Crowson and others; code MIT, weights as their publisher says)"

OPTIONS: Mapping[str, str] = {
    "type": "image_v1 or image_transformer_v2, and in other sections of the config the kind of data and of schedules",
    "input_channels": "channels of the images",
    "input_size": "height and width of the images",
    "patch_size": "side of the patches; of image_transformer_v2 height and width",
    "depths": "blocks or layers of each level",
    "dropout_rate": "probability with which features are dropped in training",
    "augment_wrapper": "whether image_v1 is told how images were augmented",
    "augment_prob": "probability of each augmentation in training",
    "mapping_cond_dim": "entries of a vector condition",
    "sigma_data": "standard deviation of the data",
    "sigma_min": "lowest noise level",
    "sigma_max": "highest noise level",
    "sigma_sample_density": "distribution of noise levels in training",
    "loss_config": "the loss",
    "loss_weighting": "weight of noise levels in the loss",
    "loss_scales": "scales of the loss",
    "noise_perturbation_factor": "perturbation of noise in training",
    "mapping_out": "image_v1: features of the mapping network",
    "unet_cond_dim": "image_v1: channels of an image condition",
    "cross_cond_dim": "image_v1: features of the tokens of a sequence condition",
    "cross_attn_depths": "image_v1: whether each level attends to a sequence condition",
    "channels": "image_v1: channels of each level",
    "self_attn_depths": "image_v1: whether each level has self-attention",
    "skip_stages": "image_v1: levels that are left out, from the finest on",
    "has_variance": "whether the network tells a log-variance as well",
    "widths": "image_transformer_v2: features of each level",
    "d_ffs": "image_transformer_v2: features of the feed-forward layers of each level",
    "self_attns": "image_transformer_v2: type, d_head and kernel_size or window_size of each level's attention",
    "mapping_width": "image_transformer_v2: features of the mapping network",
    "mapping_depth": "image_transformer_v2: blocks of the mapping network",
    "mapping_d_ff": "image_transformer_v2: features of its feed-forward layers",
    "mapping_dropout_rate": "image_transformer_v2: its dropout in training",
    "num_classes": "classes, without the one for none; 0 for an unconditional model",
    "cond_dropout_rate": "probability with which an item was trained without its class",
    "location": "where the data are",
    "image_key": "the column of the images",
    "class_key": "the column of the classes",
    "optimizer": "the optimizer's section of the config",
    "lr_sched": "the section of the learning rate",
    "ema_sched": "the section of the average of the weights",
}

OPTION_KINDS: Mapping[str, Kind] = kinds_by_name(
    {
        str: "type loss_config loss_weighting location",
        (str, int): "image_key class_key",
        bool: "augment_wrapper has_variance",
        int: "input_channels mapping_cond_dim loss_scales mapping_out unet_cond_dim cross_cond_dim skip_stages "
        "mapping_width mapping_depth num_classes",
        (int, type(None)): "mapping_d_ff",
        (int, tuple): "patch_size",
        float: "augment_prob sigma_data sigma_min sigma_max noise_perturbation_factor mapping_dropout_rate "
        "cond_dropout_rate",
        (float, list, type(None)): "dropout_rate",
        tuple: "input_size depths channels self_attn_depths widths",
        (list, type(None)): "cross_attn_depths d_ffs self_attns",
        dict: "sigma_sample_density optimizer lr_sched ema_sched",
    }
)
"""What each option may be."""

MARKS = {
    "image_v1": ("timestep_embed.weight", "u_net.d_blocks.0.1.main.0.mapper.weight"),
    "image_transformer_v2": ("time_emb.weight", "mapping.in_norm.scale", "patch_in.proj.weight"),
    "image_transformer_v1": ("time_emb.weight", "mapping.in_norm.scale", "in_proj.weight"),
}
"""Tensors that tell the kinds of its networks from others."""


NEEDED = {
    "image_v1": ("patch_size", "dropout_rate", "sigma_data"),
    "image_transformer_v2": ("self_attns", "dropout_rate", "mapping_dropout_rate", "sigma_data"),
}
"""What each kind needs to be told where there is no config, beside what every file needs."""


def recognizes(contents: Contents) -> bool:
    """Whether a file is k-diffusion's: by the names of tensors that only its networks have."""
    return any(_kind(tensors) for tensors in _candidates(contents).values())


def read(contents: Contents, weights: str, facts: Facts) -> Foreign:
    """A ``.pth`` of training (``weights`` are its model_ema or its model), or the safetensors of
    convert_for_inference.py, which hold the average alone. Their config is in the file; facts are for a file without.
    """
    tensors = _tensors(contents, weights)
    kind = _kind(tensors)
    if kind == "image_transformer_v1":
        raise ValueError("image_transformer_v1 has no network here: image_v1 and image_transformer_v2 have")
    settings = Settings(facts, _config(contents))
    of_classes = ("cond_dropout_rate",) if "class_emb.weight" in tensors else ()
    settings.require(*NEEDED[kind], *of_classes)
    told = {"image_v1": read_unet, "image_transformer_v2": read_transformer}[kind](tensors, settings)
    network = dict(told.network)
    conditions = network.pop("conditions", {})
    return Foreign(
        network=network,
        event_shape=told.event_shape,
        num_classes=told.num_classes,
        sde=VESDE(settings.of("sigma_min", kind=float), settings.of("sigma_max", kind=float)),
        state=told.state,
        sigma_data=settings.of("sigma_data", default=1.0, kind=float),
        transform=pixels(),
        null_trained=told.null_trained,
        conditions={name: tuple(shape) for name, shape in conditions.items()},
        origin={"model": kind} | ({"weights": AS_PUBLISHED} if _unsaid(contents, weights) else {}),
    )


def _candidates(contents: Contents) -> dict[str, dict[str, Tensor]]:
    """Tensors by what they are: "ema" and "raw" of a file of training, or "alone"."""
    if contents.kind == "torch":
        found = {"ema": contents.tensors("model_ema"), "raw": contents.tensors("model"), "alone": contents.tensors()}
    else:
        found = {"alone": contents.tensors()} if contents.kind == "safetensors" else {}
    return {name: tensors for name, tensors in found.items() if tensors}


def _tensors(contents: Contents, weights: str) -> dict[str, Tensor]:
    found = {name: tensors for name, tensors in _candidates(contents).items() if _kind(tensors)}
    if weights == "raw" and contents.kind == "safetensors":
        raise ValueError("weights = 'raw': a file of convert_for_inference.py holds the average alone, take 'ema'")
    if weights not in found and "alone" not in found:
        there = " and ".join(found)
        raise ValueError(f"weights = {weights!r}: the file has none of these, take {there!r}")
    return found[weights if weights in found else "alone"]


def _unsaid(contents: Contents, weights: str) -> bool:
    """Whether a file holds one set of weights, and does not say which."""
    return contents.kind == "torch" and weights not in _candidates(contents)


def _kind(tensors: Mapping[str, Tensor]) -> str:
    """The kind of network that tensors are of, or an empty text."""
    names = {name.removeprefix("inner_model.") for name in tensors}
    return next((kind for kind, marks in MARKS.items() if names.issuperset(marks)), "")


def _config(contents: Contents) -> dict[str, Any]:
    """The options that a file has beside its tensors: those of the model, and of the data what tells of classes."""
    config = contents.data.get("config", MISSING) if contents.kind == "torch" else contents.metadata.get("config")
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the config in the metadata of {contents.path} is no JSON: {error}") from None
    if not isinstance(config, Mapping) or not isinstance(config.get("model"), Mapping):
        return {}
    data = config.get("dataset")
    data = data if isinstance(data, Mapping) else {}
    classes = {name: data[name] for name in ("num_classes", "cond_dropout_rate") if name in data}
    return dict(config["model"]) | classes
