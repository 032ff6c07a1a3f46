"""What judges pictures that were drawn from captions: a classifier in features, chances, copies, and a sheet of them."""
