"""Evaluation: metrics of a trained model, and of samples."""
