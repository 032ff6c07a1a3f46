"""What --mode train and train_classifier are made of."""
