"""CIFAR-10 as images in a zip or folder, one sub-folder per class; the network has the size of DDPM's."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What the experiment decides; other keys have their defaults."""
    return ConfigDict(
        {
            "data": {
                "dataset": "images",
                "event_shape": (3, 32, 32),
                "root": "data/cifar10/train.zip",
                "color_mode": "RGB",
            },
            "sde": {"name": "vp", "t_min": 1e-05},
            "model": {
                "network": {
                    "name": "unet",
                    "channels": 128,
                    "channel_mult": (1, 2, 2, 2),
                    "attention_resolutions": (16,),
                    "dropout": 0.1,
                },
            },
            "classifier": {
                "network": {
                    "name": "unet",
                    "channel_mult": (1, 2, 2, 2),
                    "attention_resolutions": (16, 8),
                    "dropout": 0.1,
                },
                "steps": 50_000,
                "lr": 0.0003,
            },
            "training": {
                "steps": 400_000,
                "lr": 0.0002,
                "lr_decay": "none",
                "warmup_steps": 5000,
                "ema_decay": 0.9999,
                "sample_every": 5000,
                "checkpoint_every": 5000,
            },
        }
    )
