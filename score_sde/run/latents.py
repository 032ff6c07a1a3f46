"""Latents: the autoencoder that a run names, the transform that it makes, and latents kept in the run folder."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from samplers.progress import Progress
from score_sde.config.naming import with_words
from score_sde.config.program import program, quoted
from sde.autoencoder import Autoencoder, LatentTransform, standardized
from sde.autoencoder.units import outer_transform
from sde.checkpoint.models import load_model, read_description
from sde.checkpoint.tensors import open_tensors
from sde.checkpoint.transforms import build_transform
from sde.data import Dataset, existing
from sde.data.codes import PosteriorCodes
from sde.data.statistics import spread
from sde.data.transform import Transform
from sde.distributed.world import World
from sde.files import whole
from sde.model.denoiser import Preconditioned
from sde.pretrained.tiny_autoencoder import SUFFIXES, load_tiny_autoencoder

KEY = "config.model.autoencoder"
OWN = "own"
"""What names the autoencoder of the run's own folder."""
FILE = "autoencoder.safetensors"
CODES = "latents.safetensors"
DIGESTED = 256
"""Items by which kept latents are told from those of other items."""
ROWS = 1024
"""Items whose latents are computed between two moves of the progress bar."""


def latents_of(
    named: str, folder: Path, scale: str, data: Dataset, imports: set[str], device: torch.device
) -> LatentTransform:
    """The transform into latents of ``config.model.autoencoder``, measured over the training items ``data``, whose own
    transform is elementwise. Raises ValueError that names the key for what is no autoencoder, or not one of such
    items."""
    place = folder if named == OWN else existing(named, KEY)
    with with_words(f"{KEY}={named}"):
        autoencoder, outer = _opened(place, data, imports)
        if outer.num_levels != data.transform.num_levels:
            both = outer.num_levels, data.transform.num_levels
            held, here = (f"{levels} levels" if levels else "continuous values" for levels in both)
            raise ValueError(f"the autoencoder is one of items with {held}, and these have {here}")
        return standardized(autoencoder.to(device), replace(data, transform=outer), scale)


def _opened(place: Path, data: Dataset, imports: set[str]) -> tuple[Autoencoder, Transform]:
    """The autoencoder of a run folder, of a file, or of weights of others, and the transform from data units to its
    own."""
    file = place / FILE if place.is_dir() or not place.exists() else place
    if not file.exists() and not _has_weights(place):
        raise ValueError(
            f"there is no {FILE} in {place}: train it with `{program()} --mode train_autoencoder --workdir "
            f"{quoted(place)}`, or name another run folder or file"
        )
    if file.exists() and _is_ours(file):
        spec = read_description(file)["spec"]
        found = load_model(file, "autoencoder", imports)
        outer = build_transform(spec["outer"]).outer
    else:
        found = load_tiny_autoencoder(place, data.event_shape)
        outer = outer_transform(found, data)
    found.inner_shape(data.event_shape)
    return found, outer


def _has_weights(place: Path) -> bool:
    """Whether a folder holds files of weights beside a run's own."""
    return (
        place.is_dir()
        and not (place / "config.json").exists()
        and any(file.suffix in SUFFIXES for file in place.iterdir())
    )


def _is_ours(file: Path) -> bool:
    """Whether a file is one of this project."""
    try:
        with open_tensors(file) as held:
            return "score_sde" in (held.metadata() or {})
    except (SafetensorError, OSError):
        return False


def give_transform(module: Preconditioned, data: Dataset) -> None:
    """Give a module that was built anew the learned transform of its data, where they have one."""
    if isinstance(module.transform, LatentTransform) and isinstance(data.transform, LatentTransform):
        module.transform.load_state_dict(data.transform.state_dict())


def with_codes(data: Dataset, folder: Path, world: World) -> Dataset:
    """The data with the posteriors of all items, computed once and kept in the run folder. Raises ValueError for a file
    that holds others."""
    file, about = folder / CODES, {"transform": data.transform.digest, "items": items_digest(data)}

    def write() -> None:
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            codes = PosteriorCodes(data.items, data.transform)
            bar = Progress(total=len(data), desc="latents", unit="item")
            parts = []
            with bar:
                for index in torch.arange(len(data)).split(ROWS):
                    parts.append(codes[index].cpu().float())
                    bar.update(len(index))
            with whole(file) as held:
                save_file({"codes": torch.cat(parts).contiguous()}, held.name, about)

    world.broadcast_from_main(write)
    try:
        with open_tensors(file) as held:
            known, codes = held.metadata() or {}, held.get_tensor("codes")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is damaged ({error}): remove it, and the latents are computed again") from None
    if known != about:
        what = "items" if known.get("transform") == about["transform"] else "another autoencoder"
        raise ValueError(
            f"{file} holds latents of {'other ' if what == 'items' else ''}{what}: remove it, and they are computed "
            "again, or set config.data.cache_latents=False"
        )
    return replace(data, codes=codes)


def items_digest(data: Dataset) -> str:
    """A text that differs where the items do: of their number, and of the values of some of them."""
    index = spread(len(data), DIGESTED)
    items: Tensor = data.batch(index)[0].cpu()
    found = hashlib.sha256(np.ascontiguousarray(items.numpy()).data)
    return f"{len(data)} {found.hexdigest()}"
