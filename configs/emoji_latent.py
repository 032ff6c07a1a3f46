"""Emoji of 32 pixels from their captions, in latents of 8 x 8 x 4: --mode train_autoencoder, then --mode train."""

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
                "test_fraction": 0.2,
                "cache_latents": True,
                # Categories are there to judge by; the model is told what an emoji is called.
                "conditions": ("text",),
            },
            "model": {
                "autoencoder": "own",
                "text": {
                    "name": "token_vectors",
                    "tokenizer": "../shared/data/weights/wordllama-tokenizer.json.gz",
                    "vectors": "../shared/data/weights/wordllama-64.safetensors",
                },
                "network": {"name": "unet", "attention_resolutions": (4,), "sequence_layers": 2, "dropout": 0.1},
            },
            "autoencoder": {
                "network": {
                    "name": "kl",
                    "latent_channels": 4,
                    "channels": 48,
                    "channel_mult": (1, 2),
                    "patch_size": 2,
                },
                "steps": 9000,
                "batch_size": 32,
                "lr": 0.002,
                "adam_betas": (0.9, 0.99),
                "kl_weight": 1e-4,
                "augmentation": "crop",
            },
            "training": {
                "steps": 5000,
                "batch_size": 64,
                # Of ln(sigma / alpha). EDM's -1.2 is for pixels, of standard deviation 0.5; that of latents is 1.
                "time_mean": -0.2,
                "time_std": 1.3,
                "precision": "bfloat16",
                "memory_format": "contiguous",
                "compile": "off",
            },
        }
    )
