"""Conditions: what a model is told of each sample beside its noise level."""
