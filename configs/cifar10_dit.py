"""CIFAR-10 by a DiT-S/2 on pixels, with the training of Peebles and Xie 2023."""

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
            "sde": {"name": "vp", "schedule": "linear", "beta_min": 0.1, "beta_max": 20.0, "t_min": 1e-5},
            "model": {
                "parametrization": "edm",
                "conditional": True,
                "network": {
                    "name": "dit",
                    "patch": 2,
                    "width": 384,
                    "depth": 12,
                    "heads": 6,
                    "mlp_ratio": 4.0,
                    "dropout": 0.0,
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
                "steps": 400_000,
                "batch_size": 256,
                "optimizer": "adamw",
                "lr": 1e-4,
                "lr_decay": "none",
                "warmup": 0,
                "weight_decay": 0.0,
                "clip": 1.0,
                "ema": 0.9999,
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
