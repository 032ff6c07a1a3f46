"""The options of denoising-diffusion-pytorch: arguments of its Unet and of its GaussianDiffusion."""

from collections.abc import Mapping

from sde.pretrained.facts import Kind, kinds_by_name

OPTIONS: Mapping[str, str] = {
    "dim": "channels in units of which levels have theirs",
    "init_dim": "channels of the first convolution",
    "out_dim": "channels of the output",
    "dim_mults": "channels of each level in units of dim",
    "channels": "channels of the images",
    "self_condition": "whether the network sees an estimate of the data",
    "learned_variance": "whether the network predicts a variance, too",
    "learned_sinusoidal_cond": "whether frequencies of the noise level are learned",
    "random_fourier_features": "whether frequencies of the noise level are random",
    "learned_sinusoidal_dim": "number of sines and cosines at such frequencies",
    "sinusoidal_pos_emb_theta": "the longest period of the other frequencies",
    "dropout": "probability with which features are dropped in training",
    "attn_dim_head": "channels per head of attention",
    "attn_heads": "heads of attention",
    "full_attn": "whether each level has full attention",
    "flash_attn": "whether attention is computed by a fused kernel",
    "image_size": "height and width of the images",
    "timesteps": "steps of the chain in training",
    "sampling_timesteps": "steps of the chain in sampling",
    "objective": "what the network predicts: pred_noise, pred_x0 or pred_v",
    "beta_schedule": "the schedule of the betas: linear, cosine or sigmoid",
    "schedule": "beta_schedule and timesteps in a text, as 'cosine, 1000 steps'",
    "schedule_fn_kwargs": "options of the schedule",
    "ddim_sampling_eta": "share of the noise in sampling",
    "auto_normalize": "whether images in [0, 1] are brought to [-1, 1]",
    "offset_noise_strength": "noise in training that all pixels share",
    "min_snr_loss_weight": "whether the weights of the loss are cut off",
    "min_snr_gamma": "where they are cut off",
    "immiscible": "whether data and noise are matched in training",
}

OPTION_KINDS: Mapping[str, Kind] = kinds_by_name(
    {
        str: "objective beta_schedule schedule",
        bool: "self_condition learned_variance learned_sinusoidal_cond random_fourier_features flash_attn "
        "auto_normalize min_snr_loss_weight immiscible",
        int: "dim channels learned_sinusoidal_dim timesteps",
        (int, type(None)): "init_dim out_dim sampling_timesteps",
        (int, tuple): "attn_heads attn_dim_head image_size",
        float: "sinusoidal_pos_emb_theta dropout ddim_sampling_eta offset_noise_strength min_snr_gamma",
        tuple: "dim_mults",
        (bool, tuple, type(None)): "full_attn",
        dict: "schedule_fn_kwargs",
    }
)
"""What each option may be."""
