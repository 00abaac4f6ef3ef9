"""The run-time tracker."""

from lib.test.tracker.tracker import Tracker, TrackResult, checkpoint_path, find_checkpoint

__all__ = ["TrackResult", "Tracker", "checkpoint_path", "find_checkpoint"]
