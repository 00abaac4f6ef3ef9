"""What a trained model costs, and how it is put to work."""
