"""Words: captions near to each other."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from sde.condition.text import TextEncoder


def nearest_by_words(captions: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """For each caption (n,) the position of the one of the ``others`` with the most words in common, by the cosine of
    counts in which rare words weigh more; of equal ones the first."""
    counts = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit(others)
    return np.asarray((counts.transform(captions) @ counts.transform(others).T).argmax(1)).ravel()


@torch.no_grad()
def nearest_by_encoder(captions: Sequence[str], others: Sequence[str], encoder: TextEncoder) -> np.ndarray:
    """For each caption (n,) the position of the one of the ``others`` whose vector has the largest cosine with its own:
    the encoder's pooled one, or where it has none the mean of its tokens."""

    def vectors(texts: Sequence[str]) -> Tensor:
        cond = encoder(texts)
        pooled = cond["vector"] if "vector" in cond else cond["sequence"].nanmean(1)
        return F.normalize(pooled.double().nan_to_num(), dim=1)

    return (vectors(captions) @ vectors(others).T).argmax(1).cpu().numpy()
