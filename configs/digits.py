"""scikit-learn's 8x8 digits, class-conditional: real data on a CPU in minutes."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The whole experiment."""
    return ConfigDict(
        {
            "data": {"dataset": "digits", "event_shape": (1, 8, 8)},
            "sde": {"name": "vp", "schedule": "linear", "beta_min": 0.1, "beta_max": 20.0, "t_min": 1e-3},
            "model": {
                "parametrization": "edm",
                "conditional": True,
                "network": {
                    "name": "unet",
                    "channels": 32,
                    "multipliers": (1, 2),
                    "blocks": 1,
                    "attention": (4,),
                    "dropout": 0.0,
                },
            },
            "classifier": {
                "network": {
                    "name": "unet",
                    "channels": 16,
                    "multipliers": (1, 2),
                    "blocks": 1,
                    "attention": (),
                    "dropout": 0.0,
                },
                "steps": 400,
                "batch_size": 128,
                "lr": 2e-3,
                "ema": 0.99,
            },
            "training": {
                "steps": 1600,
                "batch_size": 64,
                "optimizer": "adam",
                "lr": 2e-3,
                "lr_decay": "cosine",
                "warmup": 50,
                "weight_decay": 0.0,
                "clip": 1.0,
                "ema": 0.997,
                "weighting": "edm",
                "times": "log_normal",
                "cond_dropout": 0.1,
                "seed": 0,
                "precision": "auto",
                "log_every": 50,
                "sample_every": 800,
                "checkpoint_every": 400,
            },
            "sampler": {"name": "heun"},
        }
    )
