"""What needs both training and testing: validation by tracking, and the evaluation after a training."""
