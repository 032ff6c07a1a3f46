"""Noise: random numbers of each sample, from seeds of its own."""
