"""The options of guided-diffusion: arguments of its networks, and flags of its scripts."""

from collections.abc import Mapping

from sde.pretrained.facts import Kind, kinds_by_name

NETWORK = {
    "image_size": "height and width of the images",
    "in_channels": "channels of the images",
    "model_channels": "channels in units of which levels have theirs",
    "out_channels": "channels of the output, or classes of a classifier",
    "num_res_blocks": "residual blocks per level",
    "attention_resolutions": "levels with attention, by how much smaller they are; in a text, by their sizes",
    "dropout": "probability with which features are dropped in training",
    "channel_mult": "channels of each level in units of model_channels",
    "conv_resample": "whether convolutions halve and double",
    "dims": "axes of space, 2",
    "num_classes": "classes; None for an unconditional model",
    "use_checkpoint": "whether activations are computed again in training",
    "use_fp16": "whether the network runs in half precision",
    "num_heads": "heads of attention, where num_head_channels does not say them",
    "num_head_channels": "channels per head of attention, or -1 with num_heads told instead",
    "num_heads_upsample": "heads of attention on the way up, -1 for num_heads",
    "use_scale_shift_norm": "whether the embedding scales and shifts after the norm",
    "resblock_updown": "whether residual blocks halve and double",
    "use_new_attention_order": "whether q, k and v are split before the heads, and not after",
    "pool": "how a classifier pools: attention, adaptive, spatial or spatial_v2",
}

DIFFUSION = {
    "schedule": "noise_schedule and diffusion_steps in a text, as 'cosine, 1000 steps', with what else is on",
    "noise_schedule": "the schedule of the betas, linear or cosine",
    "diffusion_steps": "steps of the chain in training",
    "steps": "steps of the chain in training",
    "learn_sigma": "whether a variance is learned",
    "sigma_small": "which variance steps have, where none is learned",
    "timestep_respacing": "steps of the chain in sampling",
    "use_kl": "whether the bound was the loss",
    "predict_xstart": "whether the network predicts the data, and not the noise",
    "rescale_timesteps": "whether steps are told in thousandths of the chain, which is the same where it has 1000",
    "rescale_learned_sigmas": "whether the bound was part of the loss",
    "clip_denoised": "whether predicted data are clipped",
}

FLAGS = {
    "num_channels": "channels in units of which levels have theirs",
    "class_cond": "whether the model is told classes",
    "classifier_use_fp16": "whether the classifier runs in half precision",
    "classifier_width": "channels of the classifier in units of which levels have theirs",
    "classifier_depth": "residual blocks per level of the classifier",
    "classifier_attention_resolutions": "sizes at which the classifier has attention",
    "classifier_use_scale_shift_norm": "whether the classifier's embedding scales and shifts after the norm",
    "classifier_resblock_updown": "whether residual blocks of the classifier halve and double",
    "classifier_pool": "how the classifier pools: attention, adaptive, spatial or spatial_v2",
}

OPTIONS: Mapping[str, str] = NETWORK | DIFFUSION | FLAGS

OPTION_KINDS: Mapping[str, Kind] = kinds_by_name(
    {
        str: "pool schedule noise_schedule classifier_pool",
        (str, int, tuple): "timestep_respacing",
        (str, tuple): "attention_resolutions channel_mult classifier_attention_resolutions",
        bool: "conv_resample use_checkpoint use_fp16 use_scale_shift_norm resblock_updown use_new_attention_order "
        "learn_sigma sigma_small use_kl predict_xstart rescale_timesteps rescale_learned_sigmas clip_denoised "
        "class_cond classifier_use_fp16 classifier_use_scale_shift_norm classifier_resblock_updown",
        int: "image_size in_channels model_channels out_channels num_res_blocks dims num_heads num_head_channels "
        "num_heads_upsample diffusion_steps steps num_channels classifier_width classifier_depth",
        (int, type(None)): "num_classes",
        float: "dropout",
    }
)
"""What each option may be."""

WHOLE: Mapping[tuple[str, ...], dict[str, int]] = {
    ("image_size", "in_channels", "model_channels", "out_channels", "num_res_blocks", "attention_resolutions"): {
        "num_heads": 1
    },
    ("image_size", "num_channels", "num_res_blocks"): {"num_heads": 4},
    ("image_size", "classifier_width", "classifier_depth"): {"num_head_channels": 64},
}
"""Options that are all told with a whole call of a network, which needs them, or with the flags of a script: what is
left out beside them has the default that it has there. These are those of the heads; q, k, v have the older order."""
