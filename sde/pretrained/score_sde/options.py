"""The options of score_sde, by its own names: those of its sections model and data, and of others."""

from collections.abc import Mapping

from sde.pretrained.facts import Kind, kinds_by_name

MODEL = {
    "name": "the network: ddpm or ncsnpp",
    "nf": "channels in units of which levels have theirs",
    "ch_mult": "channels of each level in units of nf",
    "num_res_blocks": "residual blocks per level",
    "attn_resolutions": "resolutions with self-attention",
    "resamp_with_conv": "whether convolutions halve and double",
    "conditional": "whether the network is told the noise level",
    "fir": "whether a filter comes before halving and after doubling, of ncsnpp",
    "fir_kernel": "the taps of the filter that fir turns on, as [1, 3, 3, 1]",
    "skip_rescale": "whether residual sums are divided by sqrt 2, of ncsnpp",
    "resblock_type": "residual blocks: ddpm or biggan",
    "progressive": "the output beside the network: none, output_skip or residual",
    "progressive_input": "the input beside the network: none, input_skip or residual",
    "progressive_combine": "how the input is joined: sum or cat",
    "embedding_type": "embedding of the noise level: positional or fourier",
    "fourier_scale": "scale of the random frequencies, which are in the file",
    "nonlinearity": "the activation: swish",
    "scale_by_sigma": "whether the output is divided by the noise level",
    "sigma_min": "the lowest noise level, of vesde",
    "sigma_max": "the highest noise level, of vesde",
    "num_scales": "steps of the chain",
    "beta_min": "beta at time 0, of vpsde and subvpsde",
    "beta_max": "beta at time 1, of vpsde and subvpsde",
    "dropout": "probability with which features are dropped in training",
    "ema_rate": "decay of the average of the weights",
    "init_scale": "scale of the last layers at first",
    "normalization": "the norm, GroupNorm in both networks",
    "attention_type": "the attention, ddpm in both networks",
    "conv_size": "width of the convolutions, 3 in both networks",
    "sigma_begin": "the highest noise level of NCSNv2",
}

DATA = {
    "image_size": "height and width of the images",
    "num_channels": "channels of the images",
    "centered": "whether images are in [-1, 1], and not in [0, 1]",
    "uniform_dequantization": "whether noise was added to whole levels",
    "dataset": "the data set",
    "category": "the category of LSUN",
    "random_flip": "whether images were flipped in training",
    "tfrecords_path": "where the data are",
}

TRAINING = {
    "sde": "the process: vesde, vpsde or subvpsde",
    "continuous": "whether the network was trained on all times, and not on the steps of a chain",
}

OTHER = (
    *("batch_size", "n_iters", "snapshot_freq", "log_freq", "eval_freq", "snapshot_freq_for_preemption"),
    *("snapshot_sampling", "likelihood_weighting", "reduce_mean", "n_steps_each", "noise_removal", "probability_flow"),
    *("snr", "method", "predictor", "corrector", "begin_ckpt", "end_ckpt", "enable_sampling", "num_samples"),
    *("enable_loss", "enable_bpd", "bpd_dataset", "weight_decay", "optimizer", "lr", "beta1", "eps", "warmup"),
    *("grad_clip", "seed", "device"),
)

OPTIONS: Mapping[str, str] = (
    MODEL | DATA | TRAINING | dict.fromkeys(OTHER, "an option of training, sampling or evaluation")
)
"""Every option with its meaning."""

OPTION_KINDS: Mapping[str, Kind] = kinds_by_name(
    {
        str: "name resblock_type progressive progressive_input progressive_combine embedding_type nonlinearity "
        "normalization attention_type dataset tfrecords_path sde method predictor corrector bpd_dataset optimizer",
        (str, type(None)): "category",
        bool: "resamp_with_conv conditional fir skip_rescale scale_by_sigma centered uniform_dequantization "
        "random_flip continuous snapshot_sampling likelihood_weighting reduce_mean noise_removal probability_flow "
        "enable_sampling enable_loss enable_bpd",
        int: "nf num_res_blocks num_scales conv_size image_size num_channels batch_size n_iters snapshot_freq log_freq "
        "eval_freq snapshot_freq_for_preemption n_steps_each begin_ckpt end_ckpt num_samples warmup seed",
        float: "fourier_scale sigma_min sigma_max beta_min beta_max dropout ema_rate init_scale sigma_begin snr "
        "weight_decay lr beta1 eps grad_clip",
        tuple: "ch_mult attn_resolutions fir_kernel",
    }
)
"""What each option may be, but for the device, of any type."""
