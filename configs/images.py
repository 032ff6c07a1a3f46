"""A folder or zip of small pictures, one sub-folder per class where there are any, on a CPU in an hour or less: set
--config.data.root to it, and --config.data.resolution to another side than 32."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What the experiment decides; other keys have their defaults."""
    return ConfigDict(
        {
            "data": {"dataset": "images", "root": "data/images", "color_mode": "RGB", "resolution": 32},
            "sde": {"name": "vp", "t_min": 0.0001},
            "model": {
                "network": {
                    "name": "unet",
                    "channels": 32,
                    "channel_mult": (1, 2, 2),
                    "num_res_blocks": 1,
                    "attention_resolutions": (8,),
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
                "steps": 1000,
                "ema_decay": 0.995,
            },
            "training": {
                "steps": 3000,
                "batch_size": 32,
                "ema_decay": 0.998,
                "sample_every": 500,
                "checkpoint_every": 500,
            },
        }
    )
