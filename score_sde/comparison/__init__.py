"""Comparison of samplers on a trained model."""
