"""What is done with score models and samplers: the command line and its modes. Here sde and samplers meet."""
