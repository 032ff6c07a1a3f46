"""Denoiser: a network seen as a score model, by preconditioning."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from sde.condition.standardization import Standardization
from sde.condition.text.base import TextEncoder
from sde.condition.tree import ConditionLike, Shapes, as_tree
from sde.data.transform import Transform, TransformLike
from sde.device import send, widest
from sde.model.call import call_network
from sde.model.noise_input import NoiseInput
from sde.model.parametrization import (
    FINITE_WITHOUT_SIGNAL,
    PARAMETRIZATIONS,
    Coefficients,
    noise_coefficients,
)
from sde.model.score import ScoreModel, StateModel, Terms
from sde.process.base import SDE, check_time
from sde.process.coefficients import combine
from sde.process.level import Coefficient, Level


def check_state(x: Tensor) -> None:
    """Raise TypeError unless x is a tensor of floats."""
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x is {kind}: needs a tensor of floats of shape (B, *event), in model units")


Told = Callable[[Tensor], Coefficient]
"""A number that a network is told, () or (B,), for a state x (B, *event)."""


def as_column(number: Coefficient, x: Tensor) -> Tensor:
    """A number of one sample each, a float or of shape () or (B,), as (B,) in the dtype and on the device of x."""
    if isinstance(number, float):
        return x.new_full((x.shape[0],), number)
    return send(number.to(x.dtype), x.device).expand(x.shape[0])


class Preconditioned(StateModel):
    """A network seen through its preconditioning, c_skip x + c_out F(c_in x, c_noise, cond), which denoisers and flow
    maps share.

    ``parametrization`` is a key of PARAMETRIZATIONS; ``sigma_data`` the standard deviation of the data in model units.
    ``event_shape`` is that of the data, where known. ``autocast`` is the dtype of the network's body, None for full
    precision. ``null_trained`` says whether the null condition was seen in training. ``standardization`` takes
    conditions that are numbers from data units, in which they are given, to those of the network. ``noise_input`` says
    what c_noise is, log(sigma / alpha) / 4 unless told otherwise; a network trained without ``scaled_input`` sees x as
    it is, c_in = 1. ``text`` makes conditions of prompts, ``model.text(["a red heart"])``, for whoever binds them; the
    network knows the conditions alone. Raises ValueError for an unknown parametrization, for one whose D is not finite
    at the open noise end of the process, and where the network's output has not the shape of x.
    """

    def __init__(
        self,
        network: nn.Module,
        sde: SDE,
        parametrization: str = "edm",
        sigma_data: float = 0.5,
        transform: TransformLike | None = None,
        null_trained: bool = True,
        event_shape: Sequence[int] | None = None,
        standardization: Standardization | None = None,
        noise_input: NoiseInput | None = None,
        scaled_input: bool = True,
        text: TextEncoder | None = None,
    ) -> None:
        super().__init__(sde)
        if parametrization not in PARAMETRIZATIONS:
            raise ValueError(f"parametrization = {parametrization!r}: needs one of {', '.join(PARAMETRIZATIONS)}")
        if sde.open_end and parametrization not in FINITE_WITHOUT_SIGNAL:
            raise ValueError(
                f"parametrization = {parametrization!r}: its D divides by alpha, which is 0 at t_max = {sde.t_max:g} "
                f"of this process: needs one of {', '.join(FINITE_WITHOUT_SIGNAL)}, or a smaller t_max"
            )
        if not sigma_data > 0:
            raise ValueError(f"sigma_data = {sigma_data}: needs a positive standard deviation of the data")
        if not callable(network):
            raise TypeError(
                f"network = {network!r}: needs a torch module, network(x, c_noise, cond) -> a tensor like x"
            )
        self.network = network
        # Behind the network, whose first parameter says in which dtype the model computes.
        self.transform = transform or Transform()
        self.parametrization = parametrization
        self.sigma_data = sigma_data
        self.null_trained = null_trained
        self.event_shape = tuple(event_shape) if event_shape else None
        self.standardization = standardization or Standardization({})
        self.noise_input = (noise_input or NoiseInput()).bound(sde)
        self.scaled_input = scaled_input
        self.text = text
        self.autocast: torch.dtype | None = None

    @property
    def num_classes(self) -> int | None:
        """Number of classes that the network knows; None for one that knows of none."""
        return getattr(self.network, "num_classes", None)

    @property
    def conditions(self) -> Shapes:
        """Shapes, without rows, of the vector, image and sequence that the network is conditioned on."""
        return getattr(self.network, "conditions", {})

    @property
    def kept(self) -> tuple[str, ...]:
        """The kinds of conditions that guidance leaves in its branch without conditions, as the network says."""
        return tuple(getattr(self.network, "kept", ()))

    def bodies(self) -> Iterator[nn.Module]:
        """What is worth compiling of it: the network (samplers.protocol)."""
        yield self.network

    def coefficients(self, t: Tensor) -> tuple[Coefficient, Coefficient, Coefficient, Coefficient]:
        """c_skip, c_out, c_in and c_noise: floats of one time on the CPU, else tensors of the shape of t, or floats
        where they are the same at every time."""
        at = self.sde.level(t)
        return *self._factors(at), self.network_time(at)

    def _factors(self, at: Level) -> Coefficients:
        c_skip, c_out, c_in = PARAMETRIZATIONS[self.parametrization](at.alpha, at.sigma, self.sigma_data)
        return c_skip, c_out, c_in if self.scaled_input else 1.0

    def network_time(self, at: Level) -> Coefficient:
        """c_noise of a level of ``sde``, what the network is told of the time."""
        return self.noise_input(at, self.sde)

    def denoised(
        self, x: Tensor, t: Tensor, cond: ConditionLike | None, *further: Told, outputs: list[Tensor] | None = None
    ) -> Tensor:
        """c_skip x + c_out F(c_in x, c_noise, cond), of the shape of x. What ``further`` holds are functions of a state
        to more numbers, () or (B,), that the network is told behind c_noise. ``outputs`` is given F as well."""
        check_state(x)
        check_time(self.sde, t)
        at = self.sde.level(t)
        c_skip, c_out, c_in = self._factors(at)
        # Of one time without a transfer, which would wait for the device, nor a kernel where the run has sent them all.
        c_noise = at.on(x, self.network_time) if isinstance(at.time, float) else self.network_time(at)
        if further:
            numbers = (c_noise, *(told(x) for told in further))
            c_noise = torch.stack([as_column(number, x) for number in numbers], 1)
        tree = self.standardization(as_tree(cond))
        output = call_network(self.network, x, c_in, c_noise, tree, autocast=self.autocast)
        if output.shape != x.shape:
            raise ValueError(
                f"the network returned shape {tuple(output.shape)} for x of shape {tuple(x.shape)}: "
                "it must return one tensor of the shape of x"
            )
        if outputs is not None:
            outputs.append(output)
        return combine(c_skip, x, c_out, output)


class Denoiser(Preconditioned, ScoreModel):
    """A network seen as a score model: D(x, t) = c_skip x + c_out F(c_in x, c_noise, cond), with the arguments of
    ``Preconditioned``."""

    def forward(
        self, x: Tensor, t: Tensor, cond: ConditionLike | None = None, *, outputs: list[Tensor] | None = None
    ) -> Tensor:
        """E[x_0 | x_t = x, cond]; cond holds one row per sample, in data units; None is the learned null condition.
        ``outputs`` is given F as well."""
        return self.denoised(x, t, cond, outputs=outputs)

    def terms(self, x: Tensor, t: Tensor) -> Terms:
        """Of the network's output itself: where sigma is small, D is x but for a difference that rounding leaves little
        of."""
        if not tells_output(self):
            return super().terms(x, t)
        outputs: list[Tensor] = []
        self(x, t, outputs=outputs)
        return self.terms_of(outputs[0], t)

    def terms_of(self, output: Tensor, t: Tensor) -> Terms:
        """Those with an output F of the network at t, in float64 where there is that."""
        at = self.sde.level(widest(t))
        c_skip, c_out, _ = self._factors(at)
        return Terms(
            c_skip, c_out, *noise_coefficients(self.parametrization, at.alpha, at.sigma, self.sigma_data), output
        )


def tells_output(model: nn.Module) -> bool:
    """Whether D of a model is a denoiser's own, of its network's output, and not what a subclass makes of it."""
    return isinstance(model, Denoiser) and type(model).forward is Denoiser.forward
