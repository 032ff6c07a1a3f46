"""The digits at 8x8 from their means over blocks of 2x2 and their class: the second stage of a cascade, whose first is
digits_small."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What the experiment decides; other keys have their defaults."""
    return ConfigDict(
        {
            "data": {"dataset": "digits", "conditions": ("labels", "superres"), "event_shape": (1, 8, 8)},
            "sde": {"name": "vp"},
            "model": {"network": {"name": "unet", "channels": 32, "num_res_blocks": 1}},
            "classifier": {"network": {"name": "mlp", "width": 64, "layers": 2}, "steps": 400},
            "training": {
                "steps": 700,
                "batch_size": 64,
                "lr": 0.002,
                "warmup_steps": 50,
                "ema_decay": 0.995,
                "sample_every": 350,
                "checkpoint_every": 350,
            },
        }
    )
