"""Migration: descriptions of models as earlier versions stored them, under the names of today.

Tensors and states keep their names; what changed are the names of options.
"""

import json
from collections.abc import Mapping

NETWORK_OPTIONS: dict[str, dict[str, str]] = {
    "unet": {
        "multipliers": "channel_mult",
        "blocks": "num_res_blocks",
        "attention": "attention_resolutions",
        "checkpointing": "activation_checkpointing",
    },
    "dit": {"patch": "patch_size", "checkpointing": "activation_checkpointing"},
}
"""By the name of a network, its options' old names and their new ones."""


def renamed(values: Mapping, names: Mapping[str, str]) -> dict:
    """The values with the new names of their keys; an old key beside the new one stays, to be refused."""
    return {names[key] if key in names and names[key] not in values else key: value for key, value in values.items()}


def current_network(network: Mapping) -> dict:
    """A network, its ``name`` and options, as of today."""
    return renamed(network, NETWORK_OPTIONS.get(network.get("name", ""), {}))


def current_spec(spec: Mapping) -> dict:
    """The spec of a model, ``build_denoiser``'s or ``build_classifier``'s, as of today."""
    found = {**spec}
    if isinstance(spec.get("network"), Mapping):
        found["network"] = current_network(spec["network"])
    return found


def current_state(state):
    """A training state whose ``spec``, JSON, is as of today."""
    if isinstance(state, dict) and isinstance(state.get("spec"), str):
        return state | {"spec": json.dumps(current_spec(json.loads(state["spec"])))}
    return state
