"""scikit-learn's 8x8 digits, class-conditional, by flow matching: the straight path, its velocity as what the network
predicts, and times about its middle. The network and the steps are those of digits.py."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What the experiment decides; other keys have their defaults."""
    return ConfigDict(
        {
            "data": {"dataset": "digits", "event_shape": (1, 8, 8)},
            "sde": {"name": "flow"},
            "model": {
                "parametrization": "flow",
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
                "loss_weighting": "flow",
                "time_distribution": "logit_normal",
                "time_mean": 0.0,
                "time_std": 1.0,
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
