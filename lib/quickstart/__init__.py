"""A small self-contained run: a synthetic benchmark and the whole chain of training and testing on it."""
