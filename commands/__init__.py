"""The modes of the command line, one file each; only main.py imports them. Here sde and samplers meet."""
