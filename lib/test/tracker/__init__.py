"""The run-time tracker."""

from lib.test.tracker.tracker import Target, Tracker, TrackResult, checkpoint_path, find_checkpoint

__all__ = ["Target", "TrackResult", "Tracker", "checkpoint_path", "find_checkpoint"]
