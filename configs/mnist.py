"""MNIST from its four IDX files, class-conditional, in 20 minutes on two CPU cores: set --config.data.root to their
folder."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What the experiment decides; other keys have their defaults."""
    return ConfigDict(
        {
            "data": {"dataset": "mnist", "event_shape": (1, 28, 28), "root": "data/mnist"},
            "sde": {"name": "vp", "t_min": 0.0001},
            "model": {
                "network": {
                    "name": "unet",
                    "channels": 32,
                    "channel_mult": (1, 2, 4),
                    "num_res_blocks": 1,
                    "attention_resolutions": (7,),
                },
            },
            "classifier": {
                "network": {
                    "name": "unet",
                    "channels": 16,
                    "channel_mult": (1, 2, 2),
                    "num_res_blocks": 1,
                    "dropout": 0.1,
                },
                "steps": 2000,
                "ema_decay": 0.995,
            },
            "training": {
                "steps": 3600,
                "batch_size": 64,
                "ema_decay": 0.998,
                "sample_every": 600,
                "checkpoint_every": 600,
            },
        }
    )
