"""Words: captions near to each other."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer


def nearest_captions(captions: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """For each caption (n,) the position of the one of the ``others`` with the most words in common, by the cosine of
    counts in which rare words weigh more; of equal ones the first."""
    counts = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit(others)
    return np.asarray((counts.transform(captions) @ counts.transform(others).T).argmax(1)).ravel()
