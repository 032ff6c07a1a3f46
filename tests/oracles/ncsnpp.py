"""NCSN++ written out once more, as one function of its weights, for images of even sizes."""

import math

import torch
import torch.nn.functional as F


def ncsnpp(w, options, x, c_noise, labels=None, augmentation=None):
    """The output for x (B, C, H, W); ``w`` are the weights by name, ``options`` those of NCSNppOptions."""
    o, half = options, math.sqrt(0.5) if options.skip_rescale else 1.0
    fir = tuple(o.fir_kernel) if o.resampling == "fir" else None

    def layer(name, h, **keys):
        weight, bias = w[f"{name}.weight"], w.get(f"{name}.bias")
        return F.linear(h, weight, bias) if weight.ndim == 2 else F.conv2d(h, weight, bias, **keys)

    def norm(name, h):
        groups, eps = min(32, h.shape[1] // o.group_channels), 1e-6
        flat = h.reshape(len(h), groups, -1)
        flat = (flat - flat.mean(2, keepdim=True)) / (flat.var(2, correction=0, keepdim=True) + eps).sqrt()
        return flat.view_as(h) * w[f"{name}.weight"].view(-1, 1, 1) + w[f"{name}.bias"].view(-1, 1, 1)

    def filtered(h, taps, gain, before, after):
        kernel = torch.tensor(taps, dtype=h.dtype)
        kernel = gain * kernel[:, None] * kernel / kernel.sum() ** 2
        h = F.pad(h, (before, after, before, after))
        return F.conv2d(h, kernel.expand(h.shape[1], 1, -1, -1), groups=h.shape[1])

    def stuffed(h):
        spread = h.new_zeros(*h.shape[:2], 2 * h.shape[2], 2 * h.shape[3])
        spread[:, :, ::2, ::2] = h
        return spread

    def halved(h, conv=None):
        if conv is None:
            taps = fir or (1, 1)
            return filtered(h, taps, 1, len(taps) // 2 - 1, len(taps) // 2 - 1)[:, :, ::2, ::2]
        if fir is None:
            return layer(conv, F.pad(h, (0, 1, 0, 1)), stride=2)
        # The filter meets the whole of the convolution's surroundings, which begin one before the border.
        return layer(conv, filtered(h, fir, 1, len(fir) // 2, len(fir) // 2), stride=2)

    def doubled(h, conv=None):
        taps = fir or (1, 1)
        # Two taps reach no further than their pixel, and a convolution then sees zeros beyond the border.
        cut = conv is None or len(taps) == 2
        reach = len(taps) // 2 + (0 if cut else 1)
        h = filtered(stuffed(h), taps, 4, reach, reach - 1)
        return h if conv is None else layer(conv, h, padding=1 if cut else 0)

    def block(name, h, change=lambda h: h):
        inner = layer(f"{name}.conv1", change(F.silu(norm(f"{name}.norm1", h))), padding=1)
        told = layer(f"{name}.modulation", embedding)[:, :, None, None]
        if o.adaptive:
            scale, shift = told.chunk(2, 1)
            inner = F.silu(norm(f"{name}.norm2", inner) * (1 + scale) + shift)
        else:
            inner = F.silu(norm(f"{name}.norm2", inner + told))
        outer = change(h)
        outer = layer(f"{name}.skip", outer) if f"{name}.skip.weight" in w else outer
        return half * (outer + layer(f"{name}.conv2", inner, padding=1))

    def stage(name, h):
        h = block(f"{name}.block", h)
        if f"{name}.attention.out.weight" not in w:
            return h
        q, k, v = layer(f"{name}.attention.qkv", norm(f"{name}.attention.norm", h)).flatten(2).chunk(3, 1)
        weights = torch.einsum("bci,bcj->bij", q, k).div(math.sqrt(q.shape[1])).softmax(2)
        mixed = torch.einsum("bij,bcj->bci", weights, v).view_as(h)
        return half * (h + layer(f"{name}.attention.out", mixed))

    def resampled(name, h, change):
        if o.resample_blocks:
            return block(f"{name}.resample", h, change)
        return change(h, f"{name}.resample.conv") if o.resample_conv else change(h)

    count = o.features_mult * o.channels // 2
    if o.embedding_type == "positional":
        angles = c_noise[:, None] * 10_000.0 ** (-torch.arange(count, dtype=x.dtype) / (count - 1))
    else:
        angles = c_noise[:, None] * w["embedding.mapping.frequencies"]
        angles = angles * 2 * math.pi if o.frequency_unit == "cycle" else angles
    features = torch.cat([angles.sin(), angles.cos()], 1)
    if labels is not None:
        classes = w["embedding.mapping.label.weight"].shape[1]
        hot = F.one_hot(labels + 1, classes + 1)[:, 1:].to(x.dtype)
        features = features + layer("embedding.mapping.label", math.sqrt(classes) * hot)
    if augmentation is not None:
        features = features + layer("embedding.mapping.augment", augmentation)
    embedding = layer("embedding.mapping.layers.2", F.silu(layer("embedding.mapping.layers.0", features)))
    embedding = F.silu(embedding)

    pyramid = x if o.centered else 2 * x - 1
    h = layer("stem", pyramid, padding=1)
    kept = [h]
    for level in range(len(o.channel_mult)):
        if level:
            h = resampled(f"down.{level}", h, halved)
            if o.progressive_input == "residual":
                h = pyramid = half * (h + halved(pyramid, f"down.{level}.pyramid.down.conv"))
            elif o.progressive_input == "skip":
                pyramid = halved(pyramid)
                joined = layer(f"down.{level}.pyramid.conv", pyramid)
                h = h + joined if o.progressive_combine == "sum" else torch.cat([joined, h], 1)
            kept.append(h)
        for number in range(o.num_res_blocks):
            h = stage(f"down.{level}.stages.{number}", h)
            kept.append(h)
    h = stage("middle.1", stage("middle.0", h))
    output = None
    for level in range(len(o.channel_mult)):
        h = resampled(f"up.{level}", h, doubled) if level else h
        for number in range(o.num_res_blocks + 1):
            h = stage(f"up.{level}.stages.{number}", torch.cat([h, kept.pop()], 1))
        here = f"up.{level}.pyramid"
        if o.progressive_output == "skip":
            added = layer(f"{here}.head.conv", F.silu(norm(f"{here}.head.norm", h)), padding=1)
            output = added if output is None else doubled(output) + added
        elif o.progressive_output == "residual" and not level:
            output = layer(f"{here}.head.conv", F.silu(norm(f"{here}.head.norm", h)), padding=1)
        elif o.progressive_output == "residual":
            h = output = half * (doubled(output, f"{here}.up.conv") + h)
    if o.progressive_output != "skip":
        output = layer("head.conv", F.silu(norm("head.norm", h)), padding=1)
    if o.scale_by_sigma:
        output = output / torch.exp(o.log_sigma[0] * c_noise + o.log_sigma[1])[:, None, None, None]
    return output[:, : x.shape[1]]
