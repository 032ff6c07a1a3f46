"""The digits at 4x4, class-conditional: the first stage of a cascade, whose second is digits_superres."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What the experiment decides; other keys have their defaults."""
    return ConfigDict(
        {
            "data": {"dataset": "digits", "downsample": 2, "event_shape": (1, 4, 4)},
            "sde": {"name": "vp"},
            "model": {
                "network": {
                    "name": "unet",
                    "channels": 32,
                    "num_res_blocks": 1,
                    "attention_resolutions": (2,),
                },
            },
            "classifier": {"network": {"name": "mlp", "width": 64, "layers": 2}, "steps": 400},
            "training": {
                "batch_size": 64,
                "lr": 0.002,
                "warmup_steps": 50,
                "ema_decay": 0.997,
                "sample_every": 500,
                "checkpoint_every": 500,
            },
        }
    )
