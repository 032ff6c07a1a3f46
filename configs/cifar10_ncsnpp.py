"""CIFAR-10 by an NCSN++ (Song et al. 2021) of the size and with the training of Karras et al. 2022, table 7."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The whole experiment."""
    return ConfigDict(
        {
            "data": {
                "dataset": "images",
                "event_shape": (3, 32, 32),
                "root": "data/cifar10/train.zip",
                "test_root": "",
                "mode": "RGB",
            },
            "sde": {"name": "ve", "sigma_min": 0.002, "sigma_max": 80.0},
            "model": {
                "parametrization": "edm",
                "conditional": True,
                "network": {
                    "name": "unet",
                    "channels": 128,
                    "multipliers": (2, 2, 2),
                    "blocks": 4,
                    "attention": (16,),
                    "dropout": 0.13,
                    "resampling": "fir",
                    "resample_blocks": True,
                    "noise_embedding": "fourier",
                    "fourier_scale": 16.0,
                    "skip_rescale": True,
                    "progressive_input": "residual",
                },
            },
            "classifier": {
                "network": {
                    "name": "unet",
                    "channels": 64,
                    "multipliers": (1, 2, 2, 2),
                    "blocks": 2,
                    "attention": (16, 8),
                    "dropout": 0.1,
                },
                "steps": 50_000,
                "batch_size": 128,
                "lr": 3e-4,
                "ema": 0.999,
            },
            "training": {
                "steps": 390_625,
                "batch_size": 512,
                "optimizer": "adam",
                "lr": 1e-3,
                "lr_decay": "none",
                "warmup": 19_531,
                "weight_decay": 0.0,
                "clip": 1.0,
                "ema": 0.99929,
                "weighting": "edm",
                "times": "log_normal",
                "cond_dropout": 0.1,
                "seed": 0,
                "precision": "auto",
                "log_every": 50,
                "sample_every": 5000,
                "checkpoint_every": 5000,
            },
            "sampler": {"name": "heun"},
        }
    )
