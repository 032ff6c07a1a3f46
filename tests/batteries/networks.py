"""The networks that tests run over: every registered one, small, and with each of its options."""

import math

import torch

from sde.networks import NETWORKS

SMALL = {
    "unet": {"channels": 8, "num_res_blocks": 1},
    "ncsnpp": {"channels": 8, "num_res_blocks": 1, "fourier_scale": 1.0},
    "adm": {"channels": 8, "num_res_blocks": 1},
    "linear_attention_unet": {"channels": 8, "heads": (2,), "head_channels": (4,)},
    "dit": {"width": 16, "depth": 2, "heads": 2},
    "mlp": {"width": 16, "layers": 2},
    "hdit": {"widths": (12, 24), "depths": (1, 1), "head_widths": (12,), "mapping_width": 16, "mapping_depth": 1},
    "mapped_unet": {"widths": (8, 16), "depths": (1, 1), "mapping_width": 16},
}
SHAPES = [(5,), (3, 17), (1, 8, 8), (3, 19, 26), (7, 5, 5), (2, 5, 6, 7)]
ODD = [(3, 17), (7, 5, 5)]
"""Shapes of the variants with options, which have no more to do with shapes than the network itself."""
OWN = [name for name in NETWORKS if name != "diffusers"]
"""The networks that are this project's; those of diffusers are tested where it is installed."""
REFUSED = {name: [(5,)] for name in OWN if name != "mlp"}
NCSNPP = {
    "resampling": "fir",
    "resample_blocks": True,
    "noise_embedding": "fourier",
    "skip_rescale": True,
    "progressive_input": "residual",
}
OPTIONS = {
    "unet": {
        "deep": {"num_res_blocks": 2, "channel_mult": (1, 2, 2)},
        "attention": {"attention_resolutions": "last"},
        "fir": {"resampling": "fir"},
        "resample_blocks": {"resample_blocks": True},
        "fourier": {"noise_embedding": "fourier", "fourier_scale": 4.0},
        "skip_rescale": {"skip_rescale": True},
        "progressive_input": {"progressive_input": "residual"},
        "ncsnpp": {"channel_mult": (1, 2, 2), "attention_resolutions": "last", **NCSNPP},
    },
    "ncsnpp": {
        "ddpm": {
            "resampling": "conv",
            "resample_blocks": False,
            "progressive_input": "none",
            "skip_rescale": False,
            "embedding_type": "positional",
            "group_channels": 2,
            "channel_mult": (1, 2, 2),
        },
        "ddpm++": {
            "fir_kernel": (1, 1),
            "progressive_input": "none",
            "embedding_type": "positional",
            "features_mult": 1,
            "attention_resolutions": "last",
        },
        "skips": {
            "progressive_input": "skip",
            "progressive_output": "skip",
            "progressive_combine": "cat",
            "learned_variance": True,
        },
        "residual output": {"progressive_output": "residual", "resample_blocks": False, "adaptive": True},
        "pooled": {"resample_blocks": False, "resample_conv": False},
        "scaled by sigma": {"scale_by_sigma": True, "log_sigma": (1.0, 0.5), "centered": False},
    },
    "adm": {
        "resampled between": {"resample_blocks": False, "adaptive": False, "channel_mult": (1, 1.5, 2)},
        "pooled": {"resample_blocks": False, "resample_conv": False, "group_channels": 2},
        "heads": {
            "attention_resolutions": "last",
            "num_heads": 4,
            "num_heads_upsample": 2,
            "middle_attention": False,
            "learned_variance": True,
        },
    },
    "linear_attention_unet": {
        "per level": {"full_attention": (False, True), "heads": (2, 4), "stem_channels": 12},
        "fourier": {"noise_features": "fourier", "fourier_channels": 8},
        "learned": {"noise_features": "learned", "fourier_channels": 8, "self_condition": True},
    },
    "dit": {"patch of 3": {"patch_size": 3, "mlp_ratio": 1.5}},
    "hdit": {
        "windows": {"patch_size": 1, "depths": (2, 1), "attentions": ("shifted_window", "global"), "windows": (2,)},
        "three levels": {
            "widths": (12, 24, 12),
            "depths": (1, 1, 1),
            "attentions": ("none", "neighborhood", "global"),
            "windows": (3,),
            "augment_dim": 9,
        },
    },
    "mapped_unet": {
        "patch of 2": {"patch_size": 2, "stem_width": 4, "augment_dim": 0},
        "log_variance": {"log_variance": True, "attended_levels": (0, 1)},
    },
}
VARIANTS = {
    f"{name} {option}".strip(): (name, SMALL.get(name, {}) | options)
    for name in OWN
    for option, options in {"": {}, **OPTIONS.get(name, {})}.items()
}
"""Each of OWN is in here, as it is tested on all of SHAPES but those that it refuses, and with each option on ODD."""

CASES = [
    (v, shape)
    for v, (name, _) in VARIANTS.items()
    for shape in (SHAPES if v == name else ODD)
    if shape not in REFUSED.get(name, [])
]


def shape_of(variant):
    """A small shape that a variant takes, of odd sizes."""
    return next(shape for shape in ((2, 5, 6), (5,)) if shape not in REFUSED.get(VARIANTS[variant][0], []))


def fresh(variant, shape, classes=None, table=NETWORKS, **more):
    """A variant as it is built, from seed 0."""
    name, options = VARIANTS[variant]
    options = options | more
    if options.get("attention_resolutions") == "last":
        factor = 2 ** (len(options.get("channel_mult", (1, 2))) - 1)
        options["attention_resolutions"] = (math.ceil(max(shape[1:]) / factor),)
    torch.manual_seed(0)
    return table[name](shape, classes, **options)


def build(variant, shape, classes=None, **more):
    """A variant with random weights everywhere, also where training starts from zero."""
    network = fresh(variant, shape, classes, **more)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def inputs(shape, count, dtype=torch.float32):
    """x and c_noise, from a seed."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, *shape, generator=generator, dtype=dtype)
    return x, torch.linspace(-1, 1, count, dtype=dtype)


def randomise(module):
    """The module in double precision and evaluation with random weights everywhere."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.double().eval()


def normal(*shape):
    """The same random numbers of a shape every time, in double precision."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
