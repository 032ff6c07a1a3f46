"""Networks of the diffusers library, as networks of ours."""

import importlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sde.condition.tree import Condition

KINDS = ("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel")
"""Classes of diffusers that predict one tensor of noised items, a time and classes or a sequence."""


def diffusers_library() -> Any:
    """The library. Raises ImportError, which names the extra, where it is not installed."""
    try:
        return importlib.import_module("diffusers")
    except ModuleNotFoundError as error:
        if error.name != "diffusers":
            raise
        raise ImportError(
            "networks of diffusers need it installed: pip install 'score-sde[diffusers]', or pip install diffusers"
        ) from None


class DiffusersNetwork(nn.Module):
    """The network of class ``kind``, one of KINDS, with the ``settings`` of its config.json, as JSON text.

    ``forward(x, c_noise, cond)``: c_noise (B,) is the timestep. ``conditions`` may have the "sequence" (length,
    features) that a UNet2DConditionModel attends to. A DiT's channels of a learned variance are left out, and its null
    class is the row of the table behind the classes; other networks have no null condition, and ``has_null`` says so.
    Raises ValueError for another kind, for settings that the library does not take, and for a null condition where
    there is none.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None = None,
        *,
        kind: str = "UNet2DModel",
        settings: str = "{}",
        conditions: dict[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind = {kind!r}: needs one of {', '.join(KINDS)}")
        if len(event_shape) != 3:
            raise ValueError(f"event_shape = {tuple(event_shape)}: networks of diffusers take images (C, H, W)")
        values = {"in_channels": event_shape[0], "out_channels": event_shape[0], "sample_size": event_shape[1]}
        values |= {name: value for name, value in json.loads(settings).items() if not name.startswith("_")}
        if values["in_channels"] != event_shape[0]:
            raise ValueError(f"settings: in_channels = {values['in_channels']}, but items have {event_shape[0]}")
        try:
            self.model = getattr(diffusers_library(), kind)(**values)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"settings: diffusers' {kind} does not take them ({error})") from None
        self.kind, self.channels = kind, event_shape[0]
        self.num_classes = num_classes
        self.conditions = {name: tuple(shape) for name, shape in (conditions or {}).items()}
        self.has_null = kind == "DiTTransformer2DModel" or not (num_classes or self.conditions)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        """The first channels of the output, of the shape of x (B, C, H, W)."""
        told: dict[str, Any] = {}
        if not self.has_null:
            self._check_told(cond)
        if self.num_classes:
            null = -1 if cond is None else cond["labels"]
            labels = null if isinstance(null, Tensor) else x.new_full((x.shape[0],), null, dtype=torch.long)
            # Behind the classes lies a DiT's row for none.
            told["class_labels"] = torch.where(labels < 0, self.num_classes, labels)
        if "sequence" in self.conditions and cond is not None:
            told["encoder_hidden_states"] = cond["sequence"]
        times = c_noise.long() if self.kind == "DiTTransformer2DModel" else c_noise
        return self.model(x, times, **told).sample[:, : self.channels]

    def _check_told(self, cond: Condition | None) -> None:
        """Refuse a row without its class or sequence; a graph that is traced does not look at values."""
        kinds = [*(["labels"] if self.num_classes else []), *self.conditions]
        if cond is None or any(kind not in cond for kind in kinds):
            raise ValueError(f"diffusers' {self.kind} has no null condition: give {' and '.join(kinds)}")
        if torch.compiler.is_compiling():
            return
        for kind in kinds:
            if bool((cond[kind] < 0).any() if kind == "labels" else cond[kind].isnan().any()):
                raise ValueError(f"diffusers' {self.kind} has no null condition: give {kind} for every row")
