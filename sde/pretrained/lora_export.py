"""LoRA files, written: the low-rank updates of a network of diffusers, in its naming."""

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from sde.files import whole
from sde.model.denoiser import Denoiser
from sde.networks.diffusers_network import DiffusersNetwork
from sde.networks.lora import low_rank_layers
from sde.pretrained.pipelines.network import PipelineNetwork

FILE = "pytorch_lora_weights.safetensors"


def write_lora(model: Denoiser, folder: Path) -> list[Path]:
    """Write FILE, which ``load_lora_weights`` of diffusers' pipelines reads: A and (alpha / r) B of each layer, since a
    reader of this naming that knows no alpha takes it for r. Raises ValueError for a model whose updates are merged, or
    that has none, and for networks that are not of diffusers."""
    updates = dict(low_rank_layers(model.network))
    if not updates:
        raise ValueError("this model has no low-rank updates: train some, with `lora_rank`, or export all weights")
    if not isinstance(model.network, DiffusersNetwork | PipelineNetwork):
        raise ValueError(
            f"diffusers has no network like {type(model.network).__name__}, whose layers these updates are of: what "
            "takes them is `lora` of this project"
        )
    part = "transformer" if "Transformer" in type(model.network.model).__name__ else "unet"
    state: dict[str, Tensor] = {}
    for name, layer in updates.items():
        place = f"{part}.{name.removeprefix('model.')}"
        down, up = layer.lora_A.weight.detach(), layer.scale * layer.lora_B.weight.detach()
        state |= {f"{place}.lora_A.weight": down.cpu().contiguous(), f"{place}.lora_B.weight": up.cpu().contiguous()}
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / FILE) as file:
        save_file(state, file.name, {"format": "pt"})
    return [folder / FILE]
