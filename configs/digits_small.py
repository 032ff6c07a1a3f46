"""The digits at 4x4, class-conditional: the first stage of a cascade, whose second is digits_superres."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The whole experiment."""
    return ConfigDict(
        {
            "data": {"dataset": "digits", "downsample": 2, "event_shape": (1, 4, 4)},
            "sde": {"name": "vp", "schedule": "linear", "beta_min": 0.1, "beta_max": 20.0, "t_min": 1e-3},
            "model": {
                "parametrization": "edm",
                "conditional": True,
                "network": {
                    "name": "unet",
                    "channels": 32,
                    "multipliers": (1, 2),
                    "blocks": 1,
                    "attention": (2,),
                    "dropout": 0.0,
                },
            },
            "classifier": {"network": {"name": "mlp", "width": 64, "layers": 2}, "steps": 400, "batch_size": 128},
            "training": {
                "steps": 1000,
                "batch_size": 64,
                "optimizer": "adam",
                "lr": 2e-3,
                "lr_decay": "cosine",
                "warmup": 50,
                "clip": 1.0,
                "ema": 0.997,
                "weighting": "edm",
                "times": "log_normal",
                "cond_dropout": 0.1,
                "seed": 0,
                "sample_every": 500,
                "checkpoint_every": 500,
            },
            "sampler": {"name": "heun"},
        }
    )
