"""Specs: from options and data the plain values that build a model, which its file also stores."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from score_sde.config.options import NOISE_INPUTS, Config
from sde import NoiseInput
from sde.checkpoint.spec import build_sde
from sde.checkpoint.transforms import describe_transform
from sde.data import Dataset
from sde.data.sizes import law_of


def _shared(config: Config, data: Dataset) -> dict:
    return {
        "event_shape": list(data.event_shape),
        "sde": config.sde.to_dict(),
        "sigma_data": config.model.sigma_data or data.sigma_data,
    }


def denoiser_spec(config: Config, data: Dataset, inherited: Mapping[str, Any] | None = None) -> dict:
    """What sde.checkpoint.spec.build_denoiser takes; ``inherited`` is what the weights that training begins with have
    in place of its own."""
    told = config.data.conditions
    # Of data with captions classes are kept that the model is not told.
    classes = data.num_classes if config.model.conditional and (not told or "labels" in told) else None
    conditions = _conditions(data) if config.model.conditional else {}
    spec = _shared(config, data) | {
        "network": _network(config.model.network.to_dict()),
        "num_classes": classes,
        "parametrization": config.model.parametrization,
        "transform": describe_transform(data.transform),
        "null_trained": not (classes or conditions) or config.training.cond_dropout > 0,
    }
    # A model without them is described as it was before there were any, so that its checkpoints go on.
    law = None if data.sizes is None else law_of(data.sizes)
    further = {"conditions": conditions, "about": data.about, "sizes": law, "class_counts": data.class_counts}
    further["text"] = data.text.describe() if conditions and data.text is not None else None
    found = {name: value for name, value in further.items() if value}
    return _plain(spec | found | _inputs(config) | dict(inherited or {}))


def _inputs(config: Config) -> dict:
    """What the network is told of the time, where that is not the default: the label of its process; it then sees x as
    it is."""
    if config.model.noise_input == NOISE_INPUTS[0]:
        return {}
    told = NoiseInput(*build_sde(config.sde.to_dict()).label)
    return {"noise_input": asdict(told), "scaled_input": False}


def _network(options: dict) -> dict:
    """A network as it was described before it could have layers over sequences, where it has none."""
    return {name: value for name, value in options.items() if name != "sequence_layers" or value}


def _conditions(data: Dataset) -> dict:
    """Shape, shift and scale of each condition beside the labels; what is constant is shifted alone. What a text
    encoder makes has one scale, the root mean square of its features, since rare tokens would be far from others."""
    described = {}
    for kind, (mean, std) in data.condition_moments.items():
        scale = torch.where(std > 0, std, 1.0)
        if data.text is not None and kind in data.text.shapes:
            scale = (mean.square() + std.square()).mean().sqrt().expand(len(std))
            mean = torch.zeros_like(std)
        described[kind] = {"shape": list(data.condition_shapes[kind]), "shift": mean.tolist(), "scale": scale.tolist()}
    return described


def classifier_spec(config: Config, data: Dataset) -> dict:
    """What sde.checkpoint.spec.build_classifier takes."""
    network = config.classifier.network.to_dict()
    return _plain(
        _shared(config, data)
        | {"network": network, "num_classes": data.num_classes, "event_shape": list(data.inner_shape)}
    )


def autoencoder_spec(config: Config, data: Dataset) -> dict:
    """What sde.checkpoint.spec.autoencoder_described takes."""
    return _plain({"network": config.autoencoder.network.to_dict(), "event_shape": data.event_shape})


def _plain(spec: dict) -> dict:
    """As it will be read from a file: lists for tuples."""
    return json.loads(json.dumps(spec))
