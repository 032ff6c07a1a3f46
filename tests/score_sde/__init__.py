"""Tests of what is done with both."""
