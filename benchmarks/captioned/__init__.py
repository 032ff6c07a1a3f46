"""What judges pictures drawn from captions: a classifier in features, what chance has, copies, and a sheet of them."""
