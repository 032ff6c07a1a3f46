"""Foreign models in our terms: all that rebuilds one here, and its weights by our names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sde.data.transform import Transform
from sde.device import building
from sde.model.classifier import NoisyClassifier
from sde.model.denoiser import Denoiser
from sde.model.noise_input import NoiseInput
from sde.networks import CLASSIFIERS, NETWORKS, network_of
from sde.process.base import SDE

AS_PUBLISHED = "as published"
"""What is known of the weights in a file that holds one set, and does not say whether they are averaged."""


@dataclass(frozen=True)
class Foreign:
    """``network`` is its name in NETWORKS, or in CLASSIFIERS of a ``classifier``, and its options; ``state`` are its
    weights; ``parametrization`` to ``conditions`` are as in Denoiser, and ``transform`` takes the source's data to
    what its network was trained on. ``levels`` (k,) are the times of the source's own steps, in ours, where it has
    some. ``origin`` says where the weights come from, in words. ``unsized`` is the sentence that asks for the size of
    items, where nothing says it and the network takes any: that of ``event_shape`` is then one of them. ``assumed`` is
    the sentence that says what nothing told and was taken for the usual, to warn with where the model is used."""

    network: dict[str, Any]
    event_shape: tuple[int, ...]
    num_classes: int | None
    sde: SDE
    state: Mapping[str, Tensor]
    parametrization: str = "edm"
    sigma_data: float = 0.5
    noise_input: NoiseInput = NoiseInput()
    scaled_input: bool = True
    transform: Transform = field(default_factory=Transform)
    null_trained: bool = True
    conditions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    classifier: bool = False
    levels: Tensor | None = None
    origin: dict[str, str] = field(default_factory=dict)
    unsized: str = ""
    assumed: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """The network's name and options, the shapes of its conditions among them."""
        return {**self.network, **({"conditions": self.conditions} if self.conditions else {})}

    def build(self) -> Denoiser | NoisyClassifier:
        """The model with its weights, in float32 and in eval mode, on the CPU."""
        described = self.options, self.event_shape, self.num_classes, self.classifier
        state = {name: value.float() if value.is_floating_point() else value for name, value in self.state.items()}
        with building():
            network = empty_network(*described)
            network.load_state_dict(state, assign=True)
            if any(table.is_meta for table in network.buffers()):
                # A table that no state holds was not made: only then have weights to be made twice.
                network = _network(*described)
                network.load_state_dict(state, assign=True)
        if self.classifier:
            return NoisyClassifier(
                network, self.sde, self.sigma_data, noise_input=self.noise_input, scaled_input=self.scaled_input
            ).eval()
        return Denoiser(
            network,
            self.sde,
            self.parametrization,
            self.sigma_data,
            self.transform,
            self.null_trained,
            None if self.unsized else self.event_shape,
            noise_input=self.noise_input,
            scaled_input=self.scaled_input,
        ).eval()


def _network(
    network: Mapping[str, Any], event_shape: Sequence[int], num_classes: int | None, classifier: bool
) -> nn.Module:
    options = dict(network)
    kind = network_of(options.pop("name"), table=CLASSIFIERS if classifier else NETWORKS)
    return kind(tuple(event_shape), num_classes, **options)


def empty_network(
    network: Mapping[str, Any], event_shape: Sequence[int], num_classes: int | None, classifier: bool = False
) -> nn.Module:
    """The network of a name and options on torch's meta device: names and shapes, without memory."""
    with torch.device("meta"):
        return _network(network, event_shape, num_classes, classifier)


def check_size(name: str, size: Sequence[int], factor: int | Sequence[int]) -> None:
    """Raise ValueError for sizes of images that a network there does not take: none, and no multiples of the
    ``factor``, or of one for each axis, by which it makes them smaller."""
    factors = [factor] * len(size) if isinstance(factor, int) else factor
    wrong = next(((n, f) for n, f in zip(size, factors, strict=True) if n < 1 or n % f), None)
    if wrong is not None:
        number, own = wrong
        raise ValueError(
            f"facts: {name} = {number}: the network of the file takes multiples of {own} alone, as "
            f"{max(1, round(number / own)) * own}"
        )


def pixels(low: float = -1.0, high: float = 1.0) -> Transform:
    """The transform of images of 256 levels whose integers 0 .. 255 a network sees at low .. high.

    An integer k stands for its cell [k, k + 1), whose middle is put at low + k (high - low) / 255.
    """
    scale = 255 / (high - low)
    return Transform((0.5 - low * scale,), (scale,), 256)
