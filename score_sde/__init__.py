"""The command line, its modes and all that they need: here sde and samplers meet."""
