"""Labels: ``--labels`` as it is read, where samples are drawn and where items have conditions of their own.

It is "none", names or numbers of classes with commas between them, or "data": where there are items, the conditions
they come with, and where there are none, classes as often as the data have them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from score_sde.config.naming import with_flag
from score_sde.run.class_law import draw_classes
from sde.condition.tree import Condition, condition_kinds, is_control
from sde.data.names import class_of
from sde.model.denoiser import Preconditioned


def read_classes(
    text: str | None, count: int, classes: int | None, flag: str = "--labels", names: Sequence[str] = ()
) -> Tensor | None:
    """Numbers of classes, which the text gives as such or by ``names``, cycled over ``count`` samples (count,), or None
    for "none"; by default every class in turn."""
    if text == "none" or (not text and classes is None):
        return None
    if classes is None:
        raise ValueError(
            f"{flag}={text}: the model is unconditional and there is no classifier guidance; leave the "
            "labels out, or add --classifier_scale"
        )
    labels = torch.tensor(_numbers(text, classes, flag, names) if text else range(classes))
    return labels[torch.arange(count) % len(labels)]


def _numbers(text: str, classes: int, flag: str, names: Sequence[str]) -> list[int]:
    # A name may have a comma in it.
    parts = [text] if text in names else text.split(",")
    if not names:
        try:
            found = [int(part) for part in parts]
        except ValueError:
            none = ", or none" if flag == "--labels" else ""
            raise ValueError(f"{flag}={text}: needs class numbers from 0 to {classes - 1}, as in 0,1,2{none}") from None
        for label in found:
            if not 0 <= label < classes:
                raise ValueError(f"{flag}={text}: class {label} is out of range, allowed are 0 to {classes - 1}")
        return found
    with with_flag(flag, text):
        found = [class_of(part, names, classes) for part in parts]
    for part, label in zip(parts, found, strict=True):
        if part.strip().isdigit() and int(part) != label:
            print(f"{flag}={text}: {part.strip()} is taken for the name of class {label}")
    return found


class Labels:
    """``--labels`` for a model, whose classes may have ``names``.

    ``classes`` is how many there are to choose from, those of a guiding classifier where the model has none of its own,
    and ``counts`` how often the data have each. Each reading raises ValueError for what the model, or the mode, does
    not take.
    """

    def __init__(
        self,
        text: str | None,
        model: Preconditioned,
        classes: int | None,
        names: Sequence[str] = (),
        counts: Sequence[int] | None = None,
    ) -> None:
        self.text, self.model, self.classes, self.names, self.counts = text or None, model, classes, names, counts

    def of_samples(self, count: int, seed: int = 0) -> Condition | None:
        """The labels of samples; by default every class in turn, and for "data" drawn by the law of the data."""
        if self.text == "data":
            self._check_conditional()
            if not self.classes:
                raise ValueError("--labels=data: the model has no classes; leave it out")
            return {"labels": draw_classes(self.counts, self.classes, seed, count)}
        labels = read_classes(self.text, count, self.classes, names=self.names)
        return None if labels is None else {"labels": labels}

    def of_items(self, items: Condition | None, count: int) -> Condition | None:
        """The condition of items that come with ``items``. The default is none, and where the model never trained
        without a condition, that of the items, or else every class in turn."""
        text = self.text
        if text is None and self.model.null_trained:
            return None
        if text == "data" or (text is None and items is not None):
            self._check_conditional()
            if items is None:
                raise ValueError("--labels=data: there are no classes here; give class numbers, as in 0,1,2, or none")
            return items
        # Controls are given apart, and none is the model without them.
        further = [kind for kind in self.model.conditions if not is_control(kind)]
        if further and text != "none" and (self.model.num_classes or not self.classes):
            raise ValueError(
                f"{f'--labels={text}: ' if text else ''}the model is conditioned on {' and '.join(further)} as well, "
                "which classes alone do not give; take --labels=data, all that the items come with, or none"
            )
        return self.of_samples(count)

    def takes_items(self, items: Condition | None, holder: str) -> bool:
        """Whether the condition is that of the items, where it is theirs or none, as for their likelihood; ``holder``
        is where they are from, in words. Raises ValueError where it is to be theirs, and they have none."""
        kinds = condition_kinds(self.model)
        only = bool(kinds) and not self.model.null_trained
        if items is None and kinds and (only or self.text not in (None, "none")):
            what = "classes" if "labels" in kinds else " and ".join(kinds)
            why = "this model knows log p(x | y) alone, which" if only else f"--labels={self.text}: log p(x | y)"
            raise ValueError(
                f"{why} takes the {what} of each item, and {holder} holds none: take items that have them, as images "
                "in a folder per class, or an .npz with an array of that kind, as `labels`"
                + ("" if only else ", or leave out --labels")
            )
        if self.text not in (None, "none", "data"):
            raise ValueError(
                f"--labels={self.text}: with --mode likelihood, needs data (each item's own class) or none"
            )
        if self.text == "data":
            self._check_conditional()
        if not only:
            return self.text == "data"
        if self.text == "none":
            raise ValueError(
                "--labels=none: this model never trained its unconditional branch "
                "(config.training.cond_dropout was 0); use --labels=data"
            )
        return True

    def _check_conditional(self) -> None:
        if self.classes is None and not condition_kinds(self.model):
            raise ValueError("--labels=data: the model is unconditional; leave it out")
