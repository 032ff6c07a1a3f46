"""Several processes: the world they form, and weights sharded over it."""
