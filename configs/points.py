"""Points in the plane (or any array, with --config.data.root=FILE.npy), by a residual MLP."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What the experiment decides; other keys have their defaults."""
    return ConfigDict(
        {
            "data": {"dataset": "points"},
            "sde": {"name": "vp"},
            "model": {"network": {"name": "mlp", "width": 128}},
            "classifier": {"network": {"name": "mlp", "width": 64, "layers": 2}},
            "training": {
                "steps": 4000,
                "batch_size": 512,
                "lr": 0.002,
                "ema_decay": 0.998,
                "log_every": 100,
            },
        }
    )
