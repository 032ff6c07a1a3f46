"""Score models: denoisers, and the noise-conditional classifier."""
