"""What --mode compare is made of."""
