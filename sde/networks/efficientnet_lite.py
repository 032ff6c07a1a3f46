"""EfficientNet-Lite: features of images that a classifier of ImageNet has learned, to compare images in."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""The stride of the first block of each stage; a stage is the blocks in a row that have one width."""
EPS = 1e-3
"""That of the batch norms."""
AT_ONCE = 32
"""Images that ``forward`` takes at a time."""


@dataclass(frozen=True)
class Block:
    """The shape of an inverted residual: channels in, inside and out, and the kernel and stride of its depthwise
    convolution."""

    inputs: int
    hidden: int
    outputs: int
    kernel: int
    stride: int


class InvertedResidual(nn.Module):
    """A block of Sandler et al. 2018 (arXiv:1801.04381), table 1: widened, convolved channel by channel, narrowed
    without a nonlinearity, and added to its input where the shapes agree."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        widened = block.hidden != block.inputs
        self.residual = block.stride == 1 and block.inputs == block.outputs
        self.expand = nn.Conv2d(block.inputs, block.hidden, 1) if widened else None
        self.depthwise = nn.Conv2d(block.hidden, block.hidden, block.kernel, block.stride, groups=block.hidden)
        self.project = nn.Conv2d(block.hidden, block.outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else F.relu6(self.expand(x))
        h = self.project(F.relu6(self.depthwise(same_pad(h, self.depthwise))))
        return x + h if self.residual else h


class EfficientNetLite(nn.Module):
    """The convolutions of EfficientNet-Lite (Tan and Le 2019, arXiv:1905.11946, table 1, without squeeze-and-excitation
    and with ReLU6), their batch norms folded into them, so that training and evaluation are one.

    Images (B, 3, height, width), RGB from 0 to 255, of any size and dtype, are resized to ``size`` x ``size``;
    ``forward`` gives their features (B, head), the means over space of the last convolution.
    """

    def __init__(self, blocks: Sequence[Block], stem: int = 32, head: int = 1280, size: int = 224) -> None:
        super().__init__()
        self.size, self.widths = size, [block.outputs for block in blocks]
        self.stem = nn.Conv2d(3, stem, 3, stride=2)
        self.blocks = nn.ModuleList(InvertedResidual(block) for block in blocks)
        self.head = nn.Conv2d(blocks[-1].outputs, head, 1)

    def forward(self, x: Tensor) -> Tensor:
        # A few at a time: 500 images would take gigabytes.
        return torch.cat([F.relu6(self.head(self.maps(part)[-1])).mean((2, 3)) for part in x.split(AT_ONCE)])

    def maps(self, x: Tensor, stages: int | None = None) -> list[Tensor]:
        """What the first ``stages`` stages give of images, each (B, channels, height, width); by default all. Raises
        ValueError for images without three channels."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"x has shape {tuple(x.shape)}: this network takes RGB images (B, 3, height, width)")
        x = x.to(self.stem.weight.dtype)
        if x.shape[2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        h, found = (x - 127) / 128, []
        h = F.relu6(self.stem(same_pad(h, self.stem)))
        for i, (block, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            h = block(h)
            if self.widths[i + 1 : i + 2] != [width]:
                found.append(h)
                if len(found) == stages:
                    break
        return found


def same_pad(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """x with the zeros that TensorFlow's "same" puts around it, so that the convolution gives ceil(size / stride): as
    many on both sides, and where their number is odd one more behind."""
    padding: list[int] = []
    for size, kernel, stride in zip(x.shape[2:], convolution.kernel_size, convolution.stride, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        padding = [total // 2, total - total // 2, *padding]
    return F.pad(x, padding)


def load_efficientnet_lite(path: Path, size: int = 224) -> EfficientNetLite:
    """The network of a safetensors file whose tensors have the names of efficientnet_lite_pytorch, in eval mode and
    frozen; gradients go through it to the images. Any of lite0 to lite4, as its shapes tell; what classifies is left
    out. Raises ValueError for any other file."""
    needs = "needs a safetensors file of EfficientNet-Lite with the names of efficientnet_lite_pytorch"
    try:
        tensors = load(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: {needs} ({str(error).splitlines()[0]})") from None
    try:
        blocks = _blocks(tensors)
        network = EfficientNetLite(blocks, len(tensors["_conv_stem.weight"]), len(tensors["_conv_head.weight"]), size)
        network.load_state_dict(_folded(tensors, len(blocks)))
    except KeyError as error:
        raise ValueError(f"{path}: there is no tensor {error.args[0]}: {needs}") from None
    except RuntimeError as error:
        raise ValueError(
            f"{path}: shapes do not fit ({str(error).strip().splitlines()[-1].strip()}): {needs}"
        ) from None
    return network.requires_grad_(False).eval()


def _blocks(tensors: Mapping[str, Tensor]) -> list[Block]:
    """The blocks that tensors of a file have the shapes of. Raises KeyError for a tensor that is missing, RuntimeError
    where they do not make as many stages as STRIDES."""
    blocks: list[Block] = []
    stage, count = -1, sum(name.endswith("._project_conv.weight") for name in tensors)
    inputs = len(tensors["_conv_stem.weight"])
    for name in (f"_blocks.{i}" for i in range(count)):
        outputs, hidden = tensors[f"{name}._project_conv.weight"].shape[:2]
        first = not blocks or blocks[-1].outputs != outputs
        stage += first
        if stage == len(STRIDES):
            break
        kernel = tensors[f"{name}._depthwise_conv.weight"].shape[-1]
        blocks.append(Block(inputs, hidden, outputs, kernel, STRIDES[stage] if first else 1))
        inputs = outputs
    if len(blocks) < count or stage < len(STRIDES) - 1:
        raise RuntimeError(f"its blocks are not {len(STRIDES)} stages of one width each")
    return blocks


def _folded(tensors: Mapping[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """Tensors of a file as the state of the network: y = g (W x - mean) / sqrt(var + eps) + b is one convolution."""
    pairs = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for i in range(blocks):
        parts = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1"),
                 "project": ("_project_conv", "_bn2")}  # fmt: skip
        for part, (convolution, norm) in parts.items():
            if part != "expand" or f"_blocks.{i}.{convolution}.weight" in tensors:
                pairs[f"blocks.{i}.{part}"] = (f"_blocks.{i}.{convolution}", f"_blocks.{i}.{norm}")
    state = {}
    for name, (convolution, norm) in pairs.items():
        weight = tensors[f"{convolution}.weight"].double()
        gain, bias, mean, variance = (
            tensors[f"{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gain / (variance + EPS).sqrt()
        state[f"{name}.weight"] = (weight * factor.view(-1, 1, 1, 1)).float()
        state[f"{name}.bias"] = (bias - mean * factor).float()
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise RuntimeError("some numbers are not finite")
    return state
