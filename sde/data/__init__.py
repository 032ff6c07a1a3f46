"""Data: named sets, files of many kinds, and the dataset that training and evaluation read from."""

from sde.data.dataset import Dataset
from sde.data.loading import load_dataset
from sde.data.sets import DATASETS, existing
from sde.data.split import Split

__all__ = ["DATASETS", "Dataset", "Split", "existing", "load_dataset"]
