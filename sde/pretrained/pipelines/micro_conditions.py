"""Micro-conditions: what SDXL's networks are told of an image's sizes, behind the pooled vector of its text."""

from dataclasses import dataclass

Size = tuple[int, int]


@dataclass(frozen=True)
class MicroConditions:
    """The sizes (height, width) of the image before it was scaled to those of training, of what was ``crop``ped at its
    top and left, and of the target; in place of the target, a refiner has the ``score`` that the image had for its
    looks (Podell et al. 2023, section 2.2)."""

    original_size: Size
    target_size: Size
    crop: Size = (0, 0)
    score: float | None = None

    def numbers(self) -> tuple[float, ...]:
        """In the order in which the networks take them: height and width of the original, top and left of the crop,
        then height and width of the target, or the score."""
        last = self.target_size if self.score is None else (self.score,)
        return tuple(float(number) for number in (*self.original_size, *self.crop, *last))


SCORES = (6.0, 2.5)
"""The score of a refiner's prompt, and that of what it is steered away from, diffusers' defaults."""
