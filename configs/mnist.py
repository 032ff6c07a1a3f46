"""MNIST from its four IDX files, class-conditional, in 20 minutes on two CPU cores: set --config.data.root to their
folder."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The whole experiment."""
    return ConfigDict(
        {
            "data": {"dataset": "mnist", "event_shape": (1, 28, 28), "root": "data/mnist"},
            "sde": {"name": "vp", "schedule": "linear", "beta_min": 0.1, "beta_max": 20.0, "t_min": 1e-4},
            "model": {
                "parametrization": "edm",
                "conditional": True,
                "network": {
                    "name": "unet",
                    "channels": 32,
                    "multipliers": (1, 2, 4),
                    "blocks": 1,
                    "attention": (7,),
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
                    "dropout": 0.1,
                },
                "steps": 2000,
                "batch_size": 128,
                "lr": 1e-3,
                "ema": 0.995,
            },
            "training": {
                "steps": 3600,
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
                "log_every": 50,
                "sample_every": 600,
                "checkpoint_every": 600,
            },
            "sampler": {"name": "heun"},
        }
    )
