"""Streams: the random numbers of each metric, set apart from others by the same seed. No value may change."""

SUBSAMPLES = 1
"""Which items the halves for an interval hold."""

CLASSIFIER_HALVES = 2
"""Which items a two-sample test fits its classifier to."""

SPLITS = 4
"""Which real items stand in the place of samples."""

PROJECTIONS = 3
"""On which directions a sliced distance projects."""
