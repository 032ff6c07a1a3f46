"""scikit-learn's 8x8 digits, class-conditional: real data on a CPU in minutes."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What the experiment decides; other keys have their defaults."""
    return ConfigDict(
        {
            "data": {"dataset": "digits", "event_shape": (1, 8, 8)},
            "sde": {"name": "vp"},
            "model": {
                "network": {
                    "name": "unet",
                    "channels": 32,
                    "num_res_blocks": 1,
                    "attention_resolutions": (4,),
                },
            },
            "classifier": {
                "network": {"name": "unet", "channels": 16, "num_res_blocks": 1},
                "steps": 400,
                "lr": 0.002,
                "ema_decay": 0.99,
            },
            "training": {
                "steps": 1600,
                "batch_size": 64,
                "lr": 0.002,
                "warmup_steps": 50,
                "ema_decay": 0.997,
                "sample_every": 800,
                "checkpoint_every": 400,
            },
        }
    )
