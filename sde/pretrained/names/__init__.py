"""Names: foreign tensors by ours, and the maps that more than one source has."""
