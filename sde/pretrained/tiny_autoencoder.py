"""Tiny autoencoders of others: the files of taesd (github madebyollin/taesd) and of diffusers' AutoencoderTiny."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sde.autoencoder.tiny import TinyAutoencoder
from sde.device import building
from sde.pretrained.contents import read_contents

HALVES = ("encoder", "decoder")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
NAME = re.compile(r"(?:(?P<half>encoder|decoder)\.)?(?P<theirs>layers\.)?(?P<place>\d+)\.(?P<rest>.+)")
"""A tensor's name: in a file of one half, of both, or in diffusers, whose decoder leaves out the first place."""


def read_tiny_autoencoder(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The options of ``TinyAutoencoder``, and its weights in float32, of what is at ``path``: the file of an encoder or
    a decoder, with the other half beside it under the other name, a file of both, or a folder of these.

    Raises ValueError for what is missing, or is none.
    """
    state: dict[str, Tensor] = {}
    for file, half in _files(Path(path)):
        for name, value in read_contents(file).tensors().items():
            if not (found := NAME.fullmatch(name)):
                raise ValueError(f"{file} holds {name}: a tiny autoencoder has no such tensor")
            half_of = found["half"] or half
            place = int(found["place"]) + (bool(found["theirs"]) and half_of == "decoder")
            state[f"{half_of}.{place}.{found['rest']}"] = value.float()
    lacking = [half for half in HALVES if not any(name.startswith(half) for name in state)]
    if lacking:
        raise ValueError(f"{path} has no {lacking[0]} of a tiny autoencoder: both halves are needed")
    return _options(state, path), state


def load_tiny_autoencoder(path: Path | str, event_shape: Sequence[int]) -> TinyAutoencoder:
    """The autoencoder of ``read_tiny_autoencoder`` for images of this shape, in eval mode, in float32 on the CPU.
    Raises ValueError as that does, for weights that do not fit, and for another number of channels."""
    options, state = read_tiny_autoencoder(path)
    channels = state["encoder.0.weight"].shape[1]
    if channels != event_shape[0]:
        raise ValueError(f"{path} is of images of {channels} channels, and the items have {event_shape[0]}")
    try:
        with building():
            model = TinyAutoencoder(event_shape, **options)
        # Files of others do not say what the decoder misses.
        model.load_state_dict({**state, "noise_std": model.noise_std})
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is no tiny autoencoder ({str(error).splitlines()[-1].strip()})") from None
    model.spec = {"name": "tiny", "event_shape": list(event_shape), **options}
    return model.eval()


def _files(path: Path) -> list[tuple[Path, str]]:
    """The files of the weights, each with the half of which it is where its names do not tell."""
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        named = [file for file in found if any(half in file.name for half in HALVES)] or found
        if len(named) not in (1, 2):
            raise ValueError(f"{path} holds {len(named)} files of weights: needs one, or an encoder and a decoder")
        return [(file, _half_of(file)) for file in named]
    if not path.exists():
        raise ValueError(f"{path} does not exist: needs the weights of an autoencoder")
    half = _half_of(path)
    if not half:
        return [(path, half)]
    other = HALVES[half == "encoder"]
    beside = path.with_name(path.name.replace(half, other))
    if beside.exists():
        return [(path, half), (beside, other)]
    return [(path, half)]


def _half_of(file: Path) -> str:
    return next((half for half in HALVES if half in file.name), "")


def _options(state: Mapping[str, Tensor], path: Path | str) -> dict[str, Any]:
    """The options that the names and shapes say."""
    counts = {}
    for half in HALVES:
        places = sorted({int(name.split(".")[1]) for name in state if name.startswith(half)})
        # A lone convolution without bias is where a level begins.
        plain = {p for p in places if f"{half}.{p}.weight" in state and f"{half}.{p}.bias" not in state}
        levels = [0]
        for place in places:
            if place in plain:
                levels.append(0)
            elif f"{half}.{place}.conv.0.weight" in state:
                levels[-1] += 1
        counts[f"{half}_blocks"] = tuple(levels)
    last = max(int(name.split(".")[1]) for name in state if name.startswith("encoder"))
    ends = [f"encoder.{place}.weight" for place in (0, last)]
    if not all(name in state and state[name].ndim == 4 for name in ends):
        raise ValueError(f"{path} is no tiny autoencoder: its first and last tensors are no convolutions")
    return {
        "latent_channels": state[ends[1]].shape[0],
        "midblock_norm": any(".pool." in name for name in state),
        "width": state[ends[0]].shape[0],
        **counts,
    }
