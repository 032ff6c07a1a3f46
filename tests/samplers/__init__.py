"""Tests of how it is simulated."""
