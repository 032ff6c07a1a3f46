"""Training in latents: those that are computed once."""

from score_sde.run.folder import Run
from score_sde.run.latents import with_codes
from sde.autoencoder import LatentTransform
from sde.data import Dataset


def cached_latents(run: Run, data: Dataset) -> Dataset:
    """The data with latents that are computed once, as config.data.cache_latents asks. Raises ValueError for a run
    without an autoencoder."""
    if not isinstance(data.transform, LatentTransform):
        raise ValueError(
            "config.data.cache_latents=True: the model sees the items as they are, and there are no latents to keep; "
            "name an autoencoder in config.model.autoencoder, or leave it out"
        )
    # Those of pairs are what their noises lead to.
    return data if data.codes is not None else with_codes(data, run.folder, run.world)
