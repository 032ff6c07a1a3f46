"""CIFAR-10 by NCSN++ as Karras et al. 2022 train it, on a VE process."""

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
            "sde": {"name": "ve", "sigma_min": 0.002, "sigma_max": 80.0},
            "model": {
                "network": {
                    "name": "ncsnpp",
                    "channels": 128,
                    "channel_mult": (2, 2, 2),
                    "num_res_blocks": 4,
                    "attention_resolutions": (16,),
                    "dropout": 0.13,
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
                "steps": 390_625,
                "batch_size": 512,
                "lr_decay": "none",
                "warmup_steps": 19_531,
                "ema_decay": 0.99929,
                "sample_every": 5000,
                "checkpoint_every": 5000,
            },
        }
    )
