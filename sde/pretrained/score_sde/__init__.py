"""score_sde: checkpoints of Song et al. 2021."""

from sde.pretrained.score_sde.source import OPTIONS, PROJECT, read, recognizes

__all__ = ["OPTIONS", "PROJECT", "read", "recognizes"]
