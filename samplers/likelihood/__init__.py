"""Likelihood: exact by the probability flow, bounds, and the report of both."""
