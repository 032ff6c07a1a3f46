"""The digits from their edges: a control of the run of digits, --base runs/digits, which stays as it is."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What the experiment decides; the network and the process are the base's."""
    return ConfigDict(
        {
            "data": {"dataset": "digits", "control": "edges", "event_shape": (1, 8, 8)},
            "control": {"hint_channels": (16, 32)},
            "training": {
                "steps": 2500,
                "batch_size": 64,
                "lr": 0.001,
                "warmup_steps": 50,
                "ema_decay": 0.998,
                "cond_dropout": 0.5,
                "sample_every": 1000,
                "checkpoint_every": 500,
            },
        }
    )
