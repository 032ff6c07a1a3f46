"""What --mode restore is made of."""
