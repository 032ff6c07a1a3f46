"""The score model: what samplers, guidance and likelihood see of a network."""

import abc
import copy
from typing import Any, NamedTuple, Self, cast

from torch import Tensor, nn

from sde.condition.binding import rows_of
from sde.data.transform import Transform, TransformLike
from sde.device import widest
from sde.process.base import SDE
from sde.process.coefficients import combine
from sde.process.level import Coefficient


class Terms(NamedTuple):
    """D = skip x + out F and E[z | x_t = x] = p x + q F, of an ``output`` F of the shape of x."""

    skip: Coefficient
    out: Coefficient
    p: Coefficient
    q: Coefficient
    output: Tensor


class StateModel(nn.Module):
    """A model of the states of a process, what score models and flow maps share: x has shape (B, *event) for any event
    shape, times shape () or (B,); results have the shape of x."""

    sde: SDE
    transform: TransformLike
    null_trained: bool = True
    """Whether it can be called as it is; False where a condition has to be bound to it first."""
    event_shape: tuple[int, ...] | None = None
    """The shape of an event in data units, where known."""
    with_rows: tuple[str, ...] = ()
    """Names of the attributes that have one row per sample: conditions, measurements, and what has ``rows`` itself."""

    def __init__(self, sde: SDE, transform: TransformLike | None = None) -> None:
        super().__init__()
        self.sde = sde
        self.transform = transform or Transform()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else kwargs.get("x")
        if not isinstance(x, Tensor):
            raise TypeError(f"x is {type(x).__name__}: needs a tensor of shape (B, *event), in model units")
        return super().__call__(*args, **kwargs)

    def rows(self, index: Tensor | slice) -> Self:
        """The same model for some rows of the batch that it is bound to: a copy with those rows of what is named in
        ``with_rows``, and everything else as it is. Models bound to nothing return themselves."""
        if not self.with_rows:
            return self
        part = copy.copy(self)
        # A module's submodules and buffers are kept in these: the part needs its own.
        vars(part).update({name: vars(self)[name].copy() for name in ("_modules", "_buffers")})
        for name in self.with_rows:
            setattr(part, name, _rows_of(getattr(self, name), index))
        return part


class ScoreModel(StateModel, abc.ABC):
    """The posterior mean D(x, t) = E[x_0 | x_t = x] under an SDE, and what follows from it.

    A subclass sets ``sde`` (and ``transform``, when data and model units differ) and defines ``forward``.
    """

    normalized: bool = True
    """Whether the scores are those of one normalized density at every time, as guided ones are not."""

    @abc.abstractmethod
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t = x]."""

    def terms(self, x: Tensor, t: Tensor) -> Terms:
        """Of one call of the model: here F = D, and the noise is (x - alpha D) / sigma."""
        denoised, at = self(x, t), self.sde.level(widest(t))
        return Terms(0.0, 1.0, 1 / at.sigma, -at.alpha / at.sigma, denoised)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """grad log p_t(x) = (alpha D - x) / sigma^2 (Tweedie's formula; Efron 2011)."""
        terms, at = self.terms(x, t), self.sde.level(t)
        return combine(-terms.p / at.sigma, x, -terms.q / at.sigma, terms.output)

    def noise(self, x: Tensor, t: Tensor) -> Tensor:
        """E[z | x_t = x] = (x - alpha D) / sigma = -sigma score."""
        terms = self.terms(x, t)
        return combine(terms.p, x, terms.q, terms.output)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """Drift of the probability-flow ODE, f x - g^2 score / 2 (Song et al. 2021, eq. 13), which is alpha' D + sigma'
        E[z | x_t = x]: finite at an open noise end, where f and g^2 are not."""
        # The two terms nearly cancel at the noise end: float32 would leave few digits of what multiplies x.
        terms, at = self.terms(x, t), self.sde.level(widest(t))
        of_x = at.alpha_rate * terms.skip + at.sigma_rate * terms.p
        return combine(of_x, x, at.alpha_rate * terms.out + at.sigma_rate * terms.q, terms.output)


def parts_of(model: Any, who: str) -> tuple[SDE, TransformLike | None]:
    """The process and the transform of a score model that ``who`` is put around; None for one without a transform.
    Raises TypeError for what is no score model."""
    if not (isinstance(model, nn.Module) and hasattr(model, "sde")):
        raise TypeError(
            f"{who} around {type(model).__name__}: needs a score model, a torch module with an `sde` that maps (x, t) "
            "to a tensor of the shape of x"
        )
    return cast(Any, model.sde), getattr(model, "transform", None)


def is_normalized(model: nn.Module) -> bool:
    """Whether the scores of a model are those of one density; they are where it does not say."""
    return bool(getattr(model, "normalized", True))


def _rows_of(held: Any, index: Tensor | slice) -> Any:
    """Some rows of a tensor, a dict of tensors, or of what has ``rows``; anything else, as None, serves every row."""
    if hasattr(held, "rows"):
        return held.rows(index)
    return rows_of(held, index) if isinstance(held, Tensor | dict) else held
