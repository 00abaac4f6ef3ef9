"""Trackers, their compression, and their checkpoints."""
