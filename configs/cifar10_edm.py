"""CIFAR-10 as Karras et al. 2022 train it, table 7, "ours": with classes, by DDPM++, the network that they call VP."""

from ml_collections import ConfigDict

BATCH = 512
"""Images per step, of all processes together. Durations are in images, as in the table."""
DURATION = 200_000_000
RAMP_UP = 10_000_000
HALF_LIFE = 500_000
DIMENSIONS = 3 * 32 * 32


def get_config() -> ConfigDict:
    """What the experiment decides; docs/recipes.md has the table, and how to train without classes, or by NCSN++."""
    return ConfigDict(
        {
            "data": {
                "dataset": "images",
                "event_shape": (3, 32, 32),
                "root": "data/cifar10/train.zip",
                "test_root": "data/cifar10/test.zip",
                "color_mode": "RGB",
                "dequantized": False,
            },
            "sde": {"name": "ve", "sigma_min": 0.002, "sigma_max": 80.0},
            "model": {
                "parametrization": "edm",
                "sigma_data": 0.5,
                "conditional": True,
                "network": {
                    "name": "ncsnpp",
                    "channels": 128,
                    "channel_mult": (2, 2, 2),
                    "num_res_blocks": 4,
                    "attention_resolutions": (16,),
                    "dropout": 0.13,
                    "augment_dim": 9,
                    "embedding_type": "positional",
                    "features_mult": 1,
                    "fir_kernel": (1.0, 1.0),
                    "progressive_input": "none",
                },
            },
            "training": {
                "steps": DURATION // BATCH,
                "batch_size": BATCH,
                "time_distribution": "log_normal",
                "loss_weighting": "edm",
                "cond_dropout": 0.0,
                "augmentation": "edm",
                "augmentation_probability": 0.12,
                "optimizer": "adam",
                "adam_betas": (0.9, 0.999),
                # Theirs is 1e-8, and their loss the sum over dimensions, whose mean ours is.
                "adam_eps": 1e-8 / DIMENSIONS,
                "lr": 1e-3,
                "lr_decay": "none",
                "warmup_steps": RAMP_UP // BATCH,
                "weight_decay": 0.0,
                "max_grad_norm": 0.0,
                "ema_decay": 0.5 ** (BATCH / HALF_LIFE),
                "ema_rampup_ratio": 0.05,
                "precision": "float32",
                "sample_every": 5000,
                "checkpoint_every": 5000,
            },
        }
    )
