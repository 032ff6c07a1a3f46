"""Training runs: what is reported, saved and continued."""
