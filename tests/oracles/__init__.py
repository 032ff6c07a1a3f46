"""Oracles: models whose scores, flows and densities have closed forms."""
