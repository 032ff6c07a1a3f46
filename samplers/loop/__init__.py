"""The loop: sampling runs, and what users call."""
