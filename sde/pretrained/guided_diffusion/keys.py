"""What the keys and shapes of guided-diffusion's networks say of their architecture."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

POOL_KEYS = {"out.2.positional_embedding": "attention", "out.1.weight": "spatial_v2", "out.3.weight": "adaptive"}
"""Keys by which the pools of a classifier differ; none of them is "spatial"."""


Block = tuple[int, bool]


@dataclass(frozen=True)
class Architecture:
    """``inputs`` channels of x, ``outputs`` of the head; ``channels`` of each level in units of ``base``, and whether
    each is ``attended``; how levels are ``resampled``: "block", "conv" or "pool". ``pool`` is that of a classifier."""

    inputs: int
    outputs: int
    base: int
    channels: tuple[int, ...]
    num_res_blocks: int
    attended: tuple[bool, ...]
    adaptive: bool
    resampled: str
    num_classes: int | None
    pool: str | None

    @property
    def factor(self) -> int:
        """By how much the last level is coarser than the first."""
        return 2 ** (len(self.channels) - 1)

    @property
    def channel_mult(self) -> tuple[float, ...]:
        """Channels of each level in units of the base, whole numbers where they are."""
        return tuple(c // self.base if c % self.base == 0 else c / self.base for c in self.channels)


def architectures(tensors: Mapping[str, Tensor]) -> list[Architecture]:
    """Those that have such keys and shapes: one of a U-Net, and of a classifier whose blocks resample all numbers of
    levels whose blocks come in equal groups."""
    way_down = _blocks(tensors, "input_blocks")
    pool = None if "output_blocks.0.0.in_layers.0.weight" in tensors else _pool(tensors)
    first = tensors["input_blocks.1.0.emb_layers.1.weight"].shape[0]
    head = tensors["out.2.weight" if pool is None else _last(pool)]
    found = []
    for resampled, levels in _levels(tensors, way_down, pool):
        per_level = len(way_down) // levels
        groups = [way_down[level * per_level : (level + 1) * per_level] for level in range(levels)]
        # The first of each but the first group halves; the stem is that of the first.
        stages = [group[1:] for group in groups]
        if per_level < 2 or any(len(set(group)) != 1 for group in stages):
            continue
        halving = [group[0] for group in groups[1:]]
        before = [group[0] for group in stages[:-1]]
        if any(h[0] and h != (b[0], False) for h, b in zip(halving, before, strict=True)):
            continue
        channels = tuple(group[0][0] for group in stages)
        found.append(
            Architecture(
                inputs=tensors["input_blocks.0.0.weight"].shape[1],
                outputs=head.shape[0],
                base=tensors["time_embed.0.weight"].shape[1],
                channels=channels,
                num_res_blocks=per_level - 1,
                attended=tuple(group[0][1] for group in stages),
                adaptive=first == 2 * channels[0],
                resampled=resampled,
                num_classes=len(tensors["label_emb.weight"]) if "label_emb.weight" in tensors else None,
                pool=pool,
            )
        )
    return found


def _pool(tensors: Mapping[str, Tensor]) -> str:
    return next((pool for key, pool in POOL_KEYS.items() if key in tensors), "spatial")


def _last(pool: str) -> str:
    return {"attention": "out.2.c_proj.weight", "adaptive": "out.3.weight", "spatial_v2": "out.3.weight"}.get(
        pool, "out.2.weight"
    )


def _blocks(tensors: Mapping[str, Tensor], way: str) -> list[Block]:
    """Channels of each residual block, and whether it is attended; no channels in the place of anything else."""
    count = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith(f"{way}."))
    found: list[Block] = []
    for number in range(count):
        weight = tensors.get(f"{way}.{number}.0.out_layers.3.weight")
        attended = f"{way}.{number}.1.qkv.weight" in tensors
        found.append((0, False) if weight is None else (weight.shape[0], attended))
    return found


def _levels(tensors: Mapping[str, Tensor], way_down: list[Block], pool: str | None) -> Iterator[tuple[str, int]]:
    """How levels are resampled, and how many there may be."""
    count = len(way_down)
    convolved = sum(name.endswith(".0.op.weight") for name in tensors)
    # The stem is no block, nor are layers that halve without one.
    between = way_down.count((0, False)) - 1
    if between:
        yield "conv" if convolved else "pool", between + 1
    elif pool is None:
        # Of the blocks of a way up, those that double have one more part.
        doubling = sum(
            f"output_blocks.{number}.{place}.in_layers.0.weight" in tensors
            for number in range(count)
            for place in (1, 2)
        )
        yield "block", doubling + 1
    else:
        yield from (("block", levels) for levels in range(1, count) if count % levels == 0)
