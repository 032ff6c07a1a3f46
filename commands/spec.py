"""From a config and data to the plain values that build a model, which its file also stores."""

import json

import torch
from ml_collections import ConfigDict

from sde.checkpoint import build_sde, describe_sde
from sde.data import Dataset


def measured_sigma_data(data: Dataset) -> float:
    """Root mean square of the data in model units, over at most 10,000 items spread over the set."""
    index = torch.linspace(0, len(data) - 1, min(len(data), 10_000)).long()
    x, _ = data.batch(index)
    half = torch.full_like(x, 0.5)
    return data.transform.encode(data.transform.dequantise(x, half)).double().square().mean().sqrt().item()


def _shared(config: ConfigDict, data: Dataset) -> dict:
    return {
        "event_shape": list(data.event_shape),
        "sde": describe_sde(build_sde(config.sde.to_dict())),
        "sigma_data": config.model.sigma_data or measured_sigma_data(data),
    }


def denoiser_spec(config: ConfigDict, data: Dataset) -> dict:
    """What sde.checkpoint.build_denoiser takes."""
    classes = data.num_classes if config.model.conditional else None
    transform = data.transform
    return _shared(config, data) | {
        "network": _plain(config.model.network),
        "num_classes": classes,
        "parametrization": config.model.parametrization,
        "transform": {"shift": transform.shift, "scale": transform.scale, "levels": transform.levels},
        "null_trained": classes is None or config.training.cond_dropout > 0,
    }


def classifier_spec(config: ConfigDict, data: Dataset) -> dict:
    """What sde.checkpoint.build_classifier takes."""
    return _shared(config, data) | {"network": _plain(config.classifier.network), "num_classes": data.num_classes}


def _plain(section: ConfigDict) -> dict:
    return json.loads(json.dumps(section.to_dict()))
