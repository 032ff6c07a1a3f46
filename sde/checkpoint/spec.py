"""Specs: models as plain values, and models with fresh weights from them."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from sde.autoencoder import Autoencoder
from sde.checkpoint.base import load_base_pipeline
from sde.checkpoint.transforms import autoencoder_described, build_autoencoder, build_transform, describe_transform
from sde.condition.standardization import Standardization
from sde.condition.text import build_text
from sde.condition.tree import is_control
from sde.device import building
from sde.distillation import FlowMap
from sde.model.classifier import NoisyClassifier
from sde.model.denoiser import Denoiser
from sde.model.noise_input import NoiseInput
from sde.named import construct, is_path
from sde.networks import CLASSIFIERS, NETWORKS, network_of
from sde.networks.controlnet import ControlNet
from sde.networks.lora import LoRA, add_low_rank
from sde.pretrained.foreign import Foreign
from sde.process import SDES, process_of
from sde.process.base import SDE


def describe_sde(sde: SDE) -> dict:
    """An SDE as plain values: its name in SDES and its parameters."""
    name = next((name for name, kind in SDES.items() if kind is type(sde)), None)
    if name is None or not dataclasses.is_dataclass(sde):
        raise ValueError(f"{type(sde).__name__} cannot be stored: make it a frozen dataclass and add it to SDES")
    return {"name": name, **dataclasses.asdict(sde)}


def describe_foreign(foreign: Foreign, model: Denoiser | NoisyClassifier) -> dict:
    """The spec of a foreign model, which was built, as plain values; with where its weights come from, and the times
    of its own steps."""
    transform = foreign.transform
    spec: dict[str, Any] = {
        "network": dict(foreign.network),
        "event_shape": foreign.event_shape,
        "num_classes": foreign.num_classes,
        "sde": describe_sde(foreign.sde),
        "sigma_data": foreign.sigma_data,
        "origin": dict(foreign.origin),
        **describe_inputs(model),
    }
    if not foreign.classifier:
        spec |= {
            "parametrization": foreign.parametrization,
            "transform": describe_transform(transform),
            "null_trained": foreign.null_trained,
            "conditions": {
                kind: {"shape": shape, "shift": [0.0] * shape[-1], "scale": [1.0] * shape[-1]}
                for kind, shape in foreign.conditions.items()
            },
            "levels": None if foreign.levels is None else foreign.levels.tolist(),
        }
    return json.loads(json.dumps(spec))


def build_sde(description: dict) -> SDE:
    """The inverse of ``describe_sde``. Raises ValueError for unknown names and parameters."""
    options = dict(description)
    name = options.pop("name")
    return construct(process_of(name), "sde", name, options)


def describe_inputs(model: Denoiser | NoisyClassifier) -> dict:
    """What a spec holds of a network's inputs, ``noise_input`` and ``scaled_input``: nothing of the defaults."""
    told, described = model.noise_input, {}
    if told.process == model.sde:
        told = dataclasses.replace(told, process=None)
    if told != NoiseInput():
        described["noise_input"] = {field.name: getattr(told, field.name) for field in dataclasses.fields(told)}
        described["noise_input"]["process"] = None if told.process is None else describe_sde(told.process)
    return described if model.scaled_input else described | {"scaled_input": False}


def _inputs(spec: dict) -> dict:
    """The options that ``describe_inputs`` describes."""
    options = dict(spec.get("noise_input", {}))
    if options.get("process"):
        options["process"] = build_sde(options["process"])
    told = construct(NoiseInput, "noise_input", options.get("of", NoiseInput.of), options)
    return {"noise_input": told, "scaled_input": spec.get("scaled_input", True)}


def build_denoiser(spec: dict) -> Denoiser:
    """A denoiser with fresh weights, of ``_preconditioned``, or of a base that is a pipeline with its own; its network
    has the low-rank updates of the key lora, the options of a ``LoRA``, where there are any."""
    if "pipeline" in spec.get("base", {}):
        model = load_base_pipeline(spec["base"])
    else:
        arguments, options = _preconditioned(spec)
        model = Denoiser(*arguments, **options)
    if "lora" in spec:
        add_low_rank(model.network, LoRA(**spec["lora"]))
    return model


def build_flow_map(spec: dict) -> FlowMap:
    """A flow map with fresh weights, of ``_preconditioned`` with the key flow_map, whose "guidance" is the range of its
    guidance scale, or None; what else it holds, how it was distilled, is for others."""
    arguments, options = _preconditioned(spec)
    return FlowMap(*arguments, **options, guidance=spec["flow_map"]["guidance"])


def _preconditioned(spec: dict) -> tuple[tuple, dict]:
    """The arguments of denoisers and flow maps from plain values; ``spec`` has the keys network, event_shape,
    num_classes, sde, parametrization, sigma_data, transform, null_trained and, where there are any beside classes,
    conditions: shape, shift and scale of each, by kind, and the ``text`` encoder that they are of; where one of them is
    a control, "control" with the channels of the hint's encoder, and the network is then the base of a ControlNet; of
    networks from elsewhere what ``describe_inputs`` says. What else it holds, ``about`` the data and their ``sizes``,
    is for others."""
    options, conditions = dict(spec["network"]), spec.get("conditions", {})
    shapes = {kind: about["shape"] for kind, about in conditions.items()}
    own = {kind: shape for kind, shape in shapes.items() if not is_control(kind)}
    if own:
        options["conditions"] = own
    transform = build_transform(spec["transform"])
    # The network sees what is inside.
    network = _network(NETWORKS, options, spec | {"event_shape": transform.inner_shape(spec["event_shape"])})
    if "control" in spec:
        controls = [shape for kind, shape in shapes.items() if is_control(kind)]
        network = ControlNet(network, controls, spec["control"]["hint_channels"])
    arguments = (
        network,
        build_sde(spec["sde"]),
        spec["parametrization"],
        spec["sigma_data"],
        transform,
        spec["null_trained"],
        spec["event_shape"],
        Standardization({kind: (about["shift"], about["scale"]) for kind, about in conditions.items()}),
    )
    further = {"text": build_text(spec["text"])} if spec.get("text") else {}
    return arguments, _inputs(spec) | further


def _network(table: Mapping[str, type[nn.Module]], options: dict, spec: dict) -> nn.Module:
    """The network of a spec, of its name and other options."""
    name = options.pop("name")
    kind = network_of(name, table=table)
    network = construct(kind, "network", name, options, spec["event_shape"], spec["num_classes"])
    if not hasattr(network, "num_classes"):
        raise ValueError(f"network = {name!r} has no attribute num_classes: set it to what it is built with, or None")
    return network


def imports_of(spec: dict) -> set[str]:
    """The import paths that a spec names: building a model of it runs their modules."""
    told, transform = spec.get("noise_input"), spec.get("transform")
    parts = (
        spec.get("network"),
        spec.get("sde"),
        told.get("process") if isinstance(told, dict) else None,
        transform.get("autoencoder") if isinstance(transform, dict) else None,
    )
    named = [part.get("name", "") for part in parts if isinstance(part, dict)]
    return {name for name in named if isinstance(name, str) and is_path(name)}


def build_classifier(spec: dict) -> NoisyClassifier:
    """A classifier with fresh weights; ``spec`` has the keys network, event_shape, num_classes, sde and sigma_data, and
    of a network from elsewhere what ``describe_inputs`` says."""
    options = dict(spec["network"])
    network = _network(CLASSIFIERS, options, spec)
    return NoisyClassifier(network, build_sde(spec["sde"]), spec["sigma_data"], **_inputs(spec))


BUILDERS: dict[str, Callable[[dict], Denoiser | FlowMap | NoisyClassifier | Autoencoder]] = {
    "denoiser": build_denoiser,
    "flow_map": build_flow_map,
    "classifier": build_classifier,
    "autoencoder": lambda spec: build_autoencoder(autoencoder_described(spec)),
}


def build(kind: str, spec: dict) -> Any:
    """A module of a kind, a key of BUILDERS, to load weights into, in float32 on the CPU whatever torch's defaults;
    leaves the global random state alone."""
    with building():
        return BUILDERS[kind](spec)
