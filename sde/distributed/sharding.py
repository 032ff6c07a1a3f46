"""Sharding: parameters split over processes."""

import warnings
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The repeated blocks of a network, inner ones first: what stands in its ModuleLists and has parameters."""
    for module in reversed([*network.modules()]):
        if isinstance(module, nn.ModuleList):
            yield from (b for b in module if not isinstance(b, nn.ModuleList) and any(True for _ in b.parameters()))


def shard(network: nn.Module) -> None:
    """Split the parameters of a network over all processes, in place (FullyShardedDataParallel, fully_shard).

    A block's parameters are whole only while it runs, and those outside of blocks while the network does, as those of
    a block that shares some with what is outside of it. What is not contiguous becomes so, as sharding asks for it.
    Raises ValueError on a CPU where torch is too old for that.
    """
    # Of what the network returns, nothing is changed in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    device = next(network.parameters()).device
    if device.type == "cpu" and not hasattr(torch.cpu.Stream, "record_event"):
        raise ValueError(
            f"parallel = 'fsdp': torch {torch.__version__} cannot split weights over CPUs; take ddp, or a newer torch"
        )
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()
    for module in (*(block for block in blocks(network) if not shares(network, block)), network):
        fully_shard(module, mesh=mesh)


def shares(network: nn.Module, block: nn.Module) -> bool:
    """Whether a parameter of a block has a name outside of it, as tied weights have: each split for itself, they would
    be two from then on."""
    own, names = {*block.parameters()}, [p for _, p in block.named_parameters(remove_duplicate=False)]
    everywhere = [p for _, p in network.named_parameters(remove_duplicate=False) if p in own]
    return len(everywhere) > len(names)


def local(x: Tensor) -> Tensor:
    """This process's part of a sharded tensor; another tensor itself."""
    return x.to_local() if isinstance(x, DTensor) else x


def whole(x: Tensor) -> Tensor:
    """All of a sharded tensor, which every process must ask for; another tensor itself."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def shard_like(value, like):
    """A state with its tensors split over the processes as those of ``like`` are; each process has all of ``value``."""
    if isinstance(value, dict):
        return {key: shard_like(part, like.get(key) if isinstance(like, dict) else None) for key, part in value.items()}
    if isinstance(like, DTensor) and not isinstance(value, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return value
