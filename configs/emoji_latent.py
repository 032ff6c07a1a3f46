"""Emoji of 32 pixels in latents of 8 x 8 x 4: first --mode train_autoencoder, then --mode train."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What the experiment decides; other keys have their defaults."""
    return ConfigDict(
        {
            "data": {
                "dataset": "points",
                "root": "../shared/data/emoji32/emoji32.npz",
                "event_shape": (3, 32, 32),
                "kind": "image",
                "channels": "last",
                "num_levels": 256,
                "label_by": "category",
                # All skin tones of an emoji have one short name.
                "group_by": "short",
                "test_fraction": 0.15,
                "cache_latents": True,
            },
            "model": {"autoencoder": "own"},
            "autoencoder": {
                "network": {
                    "name": "kl",
                    "latent_channels": 4,
                    "channels": 128,
                    "channel_mult": (1,),
                    "patch_size": 4,
                },
                "steps": 12000,
                "batch_size": 32,
                "lr": 0.002,
                "adam_betas": (0.9, 0.99),
                "kl_weight": 1e-3,
                "augmentation": "crop",
            },
            "training": {"precision": "bfloat16", "memory_format": "contiguous"},
        }
    )
