"""Emoji of 32 pixels from their means over blocks of 2x2, with noise of a known level, and their captions: the second
stage of a cascade, whose first is emoji_small."""

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
                "conditions": ("text", "superres"),
                # The first stage errs, and its errors are to be mended, not handed on.
                "condition_noise": (0.0, 0.5),
            },
            "sde": {"name": "vp"},
            "model": {
                "text": {
                    "name": "token_vectors",
                    "tokenizer": "../shared/data/weights/wordllama-tokenizer.json.gz",
                    "vectors": "../shared/data/weights/wordllama-64.safetensors",
                },
                "network": {
                    "name": "unet",
                    "channels": 32,
                    "channel_mult": (1, 2, 2),
                    "num_res_blocks": 1,
                    "attention_resolutions": (8,),
                    "sequence_layers": 1,
                },
            },
            "training": {
                "steps": 4000,
                "batch_size": 32,
                "lr": 0.001,
                "ema_decay": 0.998,
                "sample_every": 1000,
                "checkpoint_every": 500,
            },
        }
    )
