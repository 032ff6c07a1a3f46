"""Fast."""
SECTIONS = {}
