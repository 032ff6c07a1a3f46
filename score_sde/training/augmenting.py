"""Augmentation as a run asks for it."""

from score_sde.config.naming import with_keys
from score_sde.run.folder import Run
from sde.data import Dataset
from sde.training.augmentation import Augmentation


def augmentation_of(run: Run, spec: dict, data: Dataset) -> Augmentation:
    """How the items of a model of ``spec`` are augmented. Raises ValueError as ``Augmentation.check`` does."""
    asked, told = run.config.training, spec["network"].get("augment_dim", 0)
    found = Augmentation(asked.augmentation, asked.augmentation_probability, told)
    with with_keys("training", "model.network", codes="config.data.cache_latents=True"):
        kinds, coded = spec.get("conditions", ()), run.config.data.cache_latents
        found.check(data.event_shape, data.sizes is not None, kinds, coded)
    return found
