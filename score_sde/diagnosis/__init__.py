"""Diagnosis of a trained run."""
