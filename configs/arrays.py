"""Sequences, images or volumes of an array (n, channels, ...) by a U-Net: set --config.data.root to FILE.npy."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What the experiment decides; other keys have their defaults."""
    return ConfigDict(
        {
            "data": {"dataset": "points", "root": "data/arrays.npy"},
            "sde": {"name": "vp"},
            "model": {
                "network": {
                    "name": "unet",
                    "channels": 32,
                    "channel_mult": (1, 2, 2),
                    "num_res_blocks": 1,
                },
            },
            "classifier": {
                "network": {
                    "name": "unet",
                    "channels": 16,
                    "channel_mult": (1, 2, 2),
                    "num_res_blocks": 1,
                },
            },
            "training": {"steps": 4000, "batch_size": 64, "ema_decay": 0.998, "log_every": 100},
        }
    )
