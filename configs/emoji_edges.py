"""Emoji from their edges: a control of a run of emoji, --base runs/emoji, which stays as it is. The data are those of
the base, so that it serves any run of images."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What the experiment decides; data, network and process are the base's."""
    return ConfigDict(
        {
            "data": {"control": "edges"},
            "control": {"hint_channels": (16, 32, 64)},
            "training": {
                "steps": 2000,
                "batch_size": 32,
                "lr": 0.001,
                "warmup_steps": 50,
                "ema_decay": 0.998,
                # Of its training items the base knows the edges by their captions: mostly the control has to tell.
                "cond_dropout": 0.8,
                # Where the noise is large edges are not to be seen yet.
                "time_mean": 0.5,
                "time_std": 1.2,
                "sample_every": 500,
                "checkpoint_every": 250,
            },
        }
    )
