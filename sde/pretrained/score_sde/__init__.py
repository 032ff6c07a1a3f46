"""score_sde: checkpoints of Song et al. 2021."""

from sde.pretrained.score_sde.source import OPTION_KINDS, OPTIONS, PROJECT, read, recognizes

__all__ = ["OPTION_KINDS", "OPTIONS", "PROJECT", "read", "recognizes"]
