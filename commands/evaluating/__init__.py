"""What --mode evaluate is made of."""
