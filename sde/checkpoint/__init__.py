"""Checkpoints: model files, training states, and snapshots of averages."""

from sde.checkpoint.models import load_model, save_model
from sde.checkpoint.states import Checkpoints

__all__ = ["Checkpoints", "load_model", "save_model"]
