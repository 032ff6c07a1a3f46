"""HDiT: an hourglass diffusion transformer over signals, images or volumes (Crowson et al. 2024)."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from sde.condition.tree import Condition, Shapes
from sde.networks.attention import Context, may_fuse
from sde.networks.encoding import Encoding, with_residuals
from sde.networks.hdit_layers import HDiTLayer, SkipSplit, TokenMerge, TokenSplit
from sde.networks.hdit_levels import Level, levels_of, surroundings
from sde.networks.layers import check_counts, check_input, crop, pad, run, split_shape, zero_init
from sde.networks.mapped_embedding import FourierFeatures, MappedEmbedding, RMSNorm, mapping_network
from sde.networks.rotary import grid_positions


class HDiT(nn.Module):
    """forward(x, c_noise, cond) -> a tensor of the shape of x (B, channels, *space); any size, by padding and
    cropping.

    Patches of ``patch_size`` positions along each axis, or of one size for each, are tokens. A level has ``widths``
    features and ``depths`` layers, on the way down and again on the way up, the last one once; between levels, blocks
    of two tokens a side are merged, and split again with a learned share of the skip. ``attentions`` are of ATTENTIONS,
    neighborhood for all levels but the last, which is global, unless told otherwise; heads have ``head_widths``
    features, neighborhoods and windows ``windows`` tokens a side, feed-forward layers ``hidden_widths`` features, three
    times the width unless told otherwise. One value serves all levels. The embedding goes through a mapping network of
    ``mapping_depth`` blocks of ``mapping_width`` features, with ``mapping_hidden`` ones inside, three times as many for
    0.

    ``cond`` holds labels below ``num_classes``, -1 for null, and what ``conditions`` gives the shapes of: a vector
    joins the embedding, an image the channels of x, and each layer attends to the tokens of a sequence
    (sde.condition), which ``sequence_layers`` of a transformer see first; None is all null. It may have an
    ``augmentation`` (B, augment_dim), which says how items were augmented. With ``activation_checkpointing``, in
    training, activations inside layers are computed again instead of kept. In training attention is fused, which has
    first derivatives in reverse mode alone, unless x is differentiated as well.

    Raises ValueError for an event shape without 1 to 3 axes of space, and for options that do not fit each other.
    """

    decoder = ("up", "splits", "norm", "head")
    tokens = True

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None = None,
        patch_size: int | Sequence[int] = (2,),
        widths: Sequence[int] = (128, 256),
        depths: Sequence[int] = (2, 4),
        hidden_widths: Sequence[int] = (),
        attentions: Sequence[str] = (),
        head_widths: Sequence[int] = (64,),
        windows: Sequence[int] = (7,),
        mapping_width: int = 256,
        mapping_depth: int = 2,
        mapping_hidden: int = 0,
        dropout: float | Sequence[float] = (0.0,),
        mapping_dropout: float = 0.0,
        augment_dim: int = 0,
        activation_checkpointing: bool = False,
        sequence_layers: int = 0,
        conditions: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.inputs, space = split_shape(event_shape, "HDiT")
        self.dims = dims = len(space)
        patches = [patch_size] if isinstance(patch_size, int) else list(patch_size)
        patches = patches * dims if len(patches) == 1 else patches
        if len(patches) != dims:
            raise ValueError(f"patch_size = {tuple(patches)}: needs one number, or one for each axis of {space}")
        check_counts(patch_size=patches, mapping_width=mapping_width)
        self.options = levels_of(widths, depths, hidden_widths, attentions, head_widths, windows, dropout)
        self.activation_checkpointing, self.num_classes = activation_checkpointing, num_classes
        self.multiple = _multiple(self.options)
        self.factor = [patch * self.multiple for patch in patches]
        self.tap_channels = [*widths]
        self.hint_shape = (widths[0], *(math.ceil(n / patch) for n, patch in zip(space, patches, strict=True)))
        mapping = mapping_network(mapping_width, mapping_depth, mapping_hidden or 3 * mapping_width, mapping_dropout)
        self.embedding = embedding = MappedEmbedding(
            mapping_width,
            num_classes,
            conditions,
            event_shape,
            _features(1, mapping_width),
            _features(augment_dim, mapping_width) if augment_dim else None,
            augment_dim,
            mapping,
            sequence_layers,
        )
        self.conditions = embedding.conditions

        def layers(level: Level) -> nn.ModuleList:
            return nn.ModuleList(HDiTLayer(level, mapping_width, dims, embedding.features) for _ in range(level.depth))

        *outer, middle = self.options
        self.stem = TokenMerge(self.inputs + embedding.channels, widths[0], patches)
        self.down, self.middle = nn.ModuleList(map(layers, outer)), layers(middle)
        self.up = nn.ModuleList(map(layers, outer))
        pairs = list(pairwise(widths))
        self.merges = nn.ModuleList(TokenMerge(fine, coarse, [2] * dims) for fine, coarse in pairs)
        self.splits = nn.ModuleList(SkipSplit(coarse, fine, dims) for fine, coarse in pairs)
        self.norm, self.head = RMSNorm(widths[0]), zero_init(TokenSplit(widths[0], self.inputs, patches))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        return self.decode(x, c_noise, self.encode(x, c_noise, cond))

    def encode(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None, hint: Tensor | None = None) -> Encoding:
        """The way down and the middle (sde.networks.encoding)."""
        check_input(x, self.inputs, self.dims)
        inputs, embedding, context = self.embedding(x, c_noise, cond)
        fused, taps = may_fuse(self, x), []
        h = self.stem(pad(inputs, self.factor).movedim(1, -1))
        h = h if hint is None else h + pad(hint, self.multiple).movedim(1, -1)
        for level, layers, merge in zip(self.options, self.down, self.merges, strict=False):
            h = self._run(layers, level, 0, h, embedding, context, fused)
            taps.append(h)
            h = merge(h)
        h = self._run(self.middle, self.options[-1], 0, h, embedding, context, fused)
        # As their sums with residuals are: kernels round by how tensors lie in memory, and windows leave views.
        return Encoding([tap.contiguous() for tap in (*taps, h)], embedding, context)

    def decode(self, x: Tensor, c_noise: Tensor, encoding: Encoding, residuals: Sequence[Tensor] = ()) -> Tensor:
        """The way up."""
        fused, embedding, context = may_fuse(self, x), encoding.embedding, encoding.context
        *skips, h = with_residuals(encoding.taps, residuals)
        for i in reversed(range(len(self.up))):
            level = self.options[i]
            # The numbers of layers go on where those of the way down end.
            h = self._run(self.up[i], level, level.depth, self.splits[i](h, skips[i]), embedding, context, fused)
        return crop(self.head(self.norm(h)).movedim(-1, 1), x.shape[2:])

    def _run(
        self,
        layers: nn.Module,
        level: Level,
        first: int,
        h: Tensor,
        embedding: Tensor,
        context: Context | None,
        fused: bool,
    ) -> Tensor:
        """The layers of a level, of which the first has the number ``first``; every other one has its windows
        shifted."""
        grid = h.shape[1:-1]
        positions, around = grid_positions(grid, h), surroundings(level, grid, h)
        for number, layer in enumerate(layers.children(), first):
            axes = around[number % 2]
            h = run(layer, h, embedding, positions, axes, context, fused, recompute=self.activation_checkpointing)
        return h


def _features(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(FourierFeatures(inputs, width), nn.Linear(width, width, bias=False))


def _multiple(levels: Sequence[Level]) -> int:
    """What the number of tokens along an axis has to be a multiple of: windows fill each level."""
    windows = [level.window if level.attention == "shifted_window" else 1 for level in levels]
    return math.lcm(*(2**number * window for number, window in enumerate(windows)), 2 ** (len(levels) - 1))
