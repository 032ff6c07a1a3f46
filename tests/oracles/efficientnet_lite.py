"""EfficientNet-Lite by its definition: windows of numpy, batch norms apart, the padding of TensorFlow."""

import math

import numpy as np
import torch

STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Of the stages, by table 1 of Tan and Le 2019."""
REPEATS, KERNELS, WIDTHS = (1, 2, 2, 2, 2, 1, 1), (3, 3, 5, 3, 5, 5, 3), (4, 5, 6, 7, 8, 9, 10)


def tensors(seed=0):
    """Random tensors of a small network under the names of a file; batch norms far from the identity."""
    rng, found = np.random.default_rng(seed), {}

    def layer(convolution, norm, shape):
        # Small sums, beside whose variance the eps of the norms shows, and norms that bring them to about 1.
        found[f"{convolution}.weight"] = 0.1 * rng.normal(size=shape) / math.sqrt(np.prod(shape[1:]))
        found[f"{norm}.weight"] = rng.uniform(0.5, 1.5, shape[0])
        found[f"{norm}.running_var"] = rng.uniform(0.005, 0.02, shape[0])
        found[f"{norm}.running_mean"] = 0.1 * rng.normal(size=shape[0])
        found[f"{norm}.bias"] = 1 + rng.normal(size=shape[0])

    layer("_conv_stem", "_bn0", (4, 3, 3, 3))
    number, inputs = 0, 4
    for repeats, kernel, width in zip(REPEATS, KERNELS, WIDTHS, strict=True):
        for _ in range(repeats):
            name, hidden = f"_blocks.{number}", inputs if number == 0 else 3 * inputs
            if number:
                layer(f"{name}._expand_conv", f"{name}._bn0", (hidden, inputs, 1, 1))
            layer(f"{name}._depthwise_conv", f"{name}._bn1", (hidden, 1, kernel, kernel))
            layer(f"{name}._project_conv", f"{name}._bn2", (width, hidden, 1, 1))
            number, inputs = number + 1, width
    layer("_conv_head", "_bn1", (12, inputs, 1, 1))
    return {name: torch.tensor(value).half() for name, value in found.items()}


def windows(x, kernel, stride):
    """x (C, H, W) -> (C, ceil(H / stride), ceil(W / stride), kernel, kernel); outside are zeros, the odd one behind."""
    outputs = [math.ceil(size / stride) for size in x.shape[1:]]
    before = [max((n - 1) * stride + kernel - size, 0) // 2 for n, size in zip(outputs, x.shape[1:], strict=True)]
    wide = np.zeros((len(x), *(size + 2 * kernel for size in x.shape[1:])))
    wide[:, before[0] : before[0] + x.shape[1], before[1] : before[1] + x.shape[2]] = x
    starts = [range(0, n * stride, stride) for n in outputs]
    return np.stack([np.stack([wide[:, i : i + kernel, j : j + kernel] for j in starts[1]], 1) for i in starts[0]], 1)


def defined(found, image):
    """Maps of all stages and features of an image (3, size, size) of 0..255, by the definition."""
    found = {name: value.double().numpy() for name, value in found.items()}

    def layer(x, convolution, norm, stride=1, act=True):
        w = found[f"{convolution}.weight"]
        seen = windows(x, w.shape[-1], stride)
        y = np.einsum("cijab,cab->cij", seen, w[:, 0]) if w.shape[1] == 1 else np.einsum("cijab,dcab->dij", seen, w)
        g, b, mean, var = (
            found[f"{norm}.{n}"][:, None, None] for n in ("weight", "bias", "running_mean", "running_var")
        )
        y = g * (y - mean) / np.sqrt(var + 0.001) + b
        return np.clip(y, 0, 6) if act else y

    h, maps, stage, number = layer((image - 127) / 128, "_conv_stem", "_bn0", 2), [], -1, 0
    while f"_blocks.{number}._project_conv.weight" in found:
        name = f"_blocks.{number}"
        first = number == 0 or len(found[f"{name}._project_conv.weight"]) != len(h)
        stage += first
        inner = layer(h, f"{name}._expand_conv", f"{name}._bn0") if number else h
        inner = layer(inner, f"{name}._depthwise_conv", f"{name}._bn1", STRIDES[stage] if first else 1)
        inner = layer(inner, f"{name}._project_conv", f"{name}._bn2", act=False)
        h, number = h + inner if inner.shape == h.shape else inner, number + 1
        maps[stage:] = [h]
    return maps, layer(h, "_conv_head", "_bn1").mean((1, 2))
