"""The run-time tracker."""

from .tracker import Target, Tracker, TrackResult, checkpoint_path, find_checkpoint

__all__ = ["Target", "TrackResult", "Tracker", "checkpoint_path", "find_checkpoint"]
