"""Runs: the folder of a run, and what every mode does with it."""
