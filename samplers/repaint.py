"""RePaint's resampling: steps that are taken several times, with noise added in between."""

from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.ancestral import Ancestral
from samplers.checks import check_integer
from samplers.numerics.transition import alpha_ratio, forward_variance, root
from samplers.renamed import renamed_arguments
from samplers.step import Noise, Result, Sampler


@renamed_arguments(resamplings="repaint_steps")
@dataclass(frozen=True)
class RePaint:
    """A sampler's step t -> s, taken ``repaint_steps`` times, with a jump back from s to t before each but the first
    (Lugmayr et al. 2022, algorithm 1, with a jump length of one step).

    The jump is the forward process, x_t = (alpha_t / alpha_s) x_s + N(0, variance of q(x_t | x_s)). Each further turn
    brings entries that guidance holds and those that it leaves free closer together: the paper's use is a model whose
    observed entries are replaced (``Replacement`` in sde.inverse), but any model will do. What a sampler remembers of
    earlier steps is forgotten, as a jump invalidates it; with one of them it is the sampler itself.
    """

    sampler: Sampler = Ancestral()
    repaint_steps: int = 10

    def __post_init__(self) -> None:
        check_integer("repaint_steps", self.repaint_steps)

    @property
    def order(self) -> float:
        """That of the sampler."""
        return self.sampler.order

    @property
    def steps(self) -> int:
        """The sampler's own default."""
        return self.sampler.steps

    @property
    def grid(self) -> str:
        """The sampler's own default."""
        return self.sampler.grid

    @property
    def adaptive(self) -> bool:
        """Whether the sampler makes steps of its own."""
        return getattr(self.sampler, "adaptive", False)

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise: Noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; ``repaint_steps`` times the sampler's network calls."""
        if self.repaint_steps == 1:
            return self.sampler.step(model, x, t, s, noise, carry)
        start, end = model.sde.level(t), model.sde.level(s)
        std = root(forward_variance(start, end))
        arrived, _ = self.sampler.step(model, x, t, s, noise)
        for _ in range(self.repaint_steps - 1):
            back = torch.add(alpha_ratio(start, end) * arrived, noise(x), alpha=std)
            arrived, _ = self.sampler.step(model, back, t, s, noise)
        return arrived, None
