"""Sequences, images or volumes of an array (n, channels, ...) by a U-Net: set --config.data.root to FILE.npy."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The whole experiment."""
    return ConfigDict(
        {
            "data": {"dataset": "points", "event_shape": (), "root": "data/arrays.npy", "layout": "channels_first"},
            "sde": {"name": "vp", "schedule": "linear", "beta_min": 0.1, "beta_max": 20.0, "t_min": 1e-3},
            "model": {
                "parametrization": "edm",
                "conditional": True,
                "network": {
                    "name": "unet",
                    "channels": 32,
                    "multipliers": (1, 2, 2),
                    "blocks": 1,
                    "attention": (),
                    "dropout": 0.0,
                },
            },
            "classifier": {
                "network": {
                    "name": "unet",
                    "channels": 16,
                    "multipliers": (1, 2, 2),
                    "blocks": 1,
                    "attention": (),
                    "dropout": 0.0,
                },
                "steps": 1000,
            },
            "training": {
                "steps": 4000,
                "batch_size": 64,
                "optimizer": "adam",
                "lr": 1e-3,
                "lr_decay": "cosine",
                "warmup": 100,
                "weight_decay": 0.0,
                "clip": 1.0,
                "ema": 0.998,
                "weighting": "edm",
                "times": "log_normal",
                "cond_dropout": 0.1,
                "seed": 0,
                "precision": "auto",
                "log_every": 100,
                "sample_every": 1000,
                "checkpoint_every": 1000,
            },
            "sampler": {"name": "heun"},
        }
    )
