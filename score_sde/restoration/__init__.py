"""Restoration: tasks, masks and methods of inverse problems."""
