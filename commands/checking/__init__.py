"""What --mode check is made of."""
