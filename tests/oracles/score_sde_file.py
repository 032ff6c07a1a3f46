"""Files of score_sde: checkpoints of networks of ours with random weights, as its code would have written them."""

import math

import torch

from sde.networks import NETWORKS
from sde.pretrained.names.song import score_sde_names
from tests.batteries.networks import randomise

SMALL = {"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (4,), "resamp_with_conv": True,
         "conditional": True, "nonlinearity": "swish", "scale_by_sigma": False, "image_size": 8, "centered": True,
         "num_scales": 40, "sigma_min": 0.01, "sigma_max": 50.0, "beta_min": 0.1, "beta_max": 20.0, "dropout": 0.1,
         "sde": "vpsde", "continuous": True}  # fmt: skip
NCSNPP = {"name": "ncsnpp", "fir": True, "fir_kernel": (1, 3, 3, 1), "skip_rescale": True, "resblock_type": "biggan",
          "progressive": "none", "progressive_input": "none", "progressive_combine": "sum",
          "embedding_type": "positional"}  # fmt: skip
VE = {"sde": "vesde", "embedding_type": "fourier", "scale_by_sigma": True, "centered": False}
DISCRETE = {"continuous": False, "embedding_type": "positional"}
PARTS = {"none": "none", "input_skip": "skip", "output_skip": "skip", "residual": "residual"}


def ours(facts):
    """Our network of score_sde's options, with random weights."""
    own = facts["name"] == "ncsnpp"
    fourier = own and facts["embedding_type"] == "fourier"
    options = {
        "channels": facts["nf"], "channel_mult": facts["ch_mult"], "num_res_blocks": facts["num_res_blocks"],
        "attention_resolutions": facts["attn_resolutions"], "resample_conv": facts["resamp_with_conv"],
        "resample_blocks": own and facts["resblock_type"] == "biggan", "skip_rescale": own and facts["skip_rescale"],
        "resampling": "fir" if own and facts["fir"] else "conv", "fir_kernel": facts.get("fir_kernel", (1, 3, 3, 1)),
        "progressive_input": PARTS[facts["progressive_input"]] if own else "none",
        "progressive_output": PARTS[facts["progressive"]] if own else "none",
        "progressive_combine": facts.get("progressive_combine", "sum"),
        "embedding_type": "fourier" if fourier else "positional", "features_mult": 2 if fourier else 1,
        "frequency_unit": "cycle", "group_channels": 4 if own else 1, "centered": facts["centered"],
        "scale_by_sigma": facts["scale_by_sigma"],
    }  # fmt: skip
    if facts["scale_by_sigma"] and fourier:
        options["log_sigma"] = (1.0, 0.0)
    elif facts["scale_by_sigma"]:
        ratio = math.log(facts["sigma_max"] / facts["sigma_min"])
        options["log_sigma"] = (-ratio / (facts["num_scales"] - 1), math.log(facts["sigma_max"]))
    torch.manual_seed(0)
    return randomise(NETWORKS["ncsnpp"]((3, 8, 8), **options)).float()


def written(path, network, facts, **more):
    """A checkpoint of score_sde with these weights, and averages that are twice as large."""
    model = {"module.sigmas": torch.logspace(math.log10(facts["sigma_max"]), math.log10(facts["sigma_min"]),
                                             facts["num_scales"], dtype=torch.float64)}  # fmt: skip
    state, found = network.state_dict(), {}
    for key, there in score_sde_names(network).items():
        if key in state:
            back = there.back(state[key])
            found |= dict(zip(there.names, back if isinstance(back, tuple) else (back,), strict=True))
    # In the order of their modules, as those register them.
    for name in sorted(found, key=lambda name: (int(name.split(".")[1]), name)):
        model[f"module.{name}"] = found[name]
    shadow = [2 * value for name, value in model.items() if name not in ("module.sigmas", "module.all_modules.0.W")]
    torch.save(
        {"optimizer": {}, "model": model, "ema": {"decay": 0.99, "shadow_params": shadow}, "step": 3} | more, path
    )
