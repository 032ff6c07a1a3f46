"""Pictures, strips, films and curves."""
