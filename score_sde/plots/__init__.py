"""Plots: pictures, strips, films and curves."""
