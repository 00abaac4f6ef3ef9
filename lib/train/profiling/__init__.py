"""What a training step waits for, measured."""
