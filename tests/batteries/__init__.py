"""Batteries: tests that run over everything registered."""
