"""Planning: samplers and grids found for a model by trying."""
