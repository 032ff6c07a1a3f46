"""Numerics that samplers share: weights, exponential integrators, adaptive steps."""
