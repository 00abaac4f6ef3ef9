"""The run-time tracker."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tracker import Target, Tracker, TrackResult, checkpoint_path, find_checkpoint

__all__ = ["Target", "TrackResult", "Tracker", "checkpoint_path", "find_checkpoint"]


def __getattr__(name: str) -> Any:
    """The names above, imported when they are asked for: the options of the scripts need no PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".tracker", __name__), name)
