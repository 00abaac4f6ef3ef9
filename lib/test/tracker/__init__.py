"""The run-time tracker."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import TrackResult
    from .tracker import Target, Tracker
    from .weights import checkpoint_path, find_checkpoint

__all__ = ["Target", "TrackResult", "Tracker", "checkpoint_path", "find_checkpoint"]

_MODULES = {"TrackResult": ".base", "Target": ".tracker", "Tracker": ".tracker", "checkpoint_path": ".weights",
            "find_checkpoint": ".weights"}


def __getattr__(name: str) -> Any:
    """The names above, imported when they are asked for: the options of the scripts need no PyTorch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
