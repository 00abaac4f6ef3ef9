"""Track with a trained model in your own program.

::

    from compresstracker import Tracker

    tracker = Tracker.from_pretrained("CompressTracker_ep0500.pth.tar", device="auto")
    tracker.init(first_frame, [x, y, w, h])              # RGB uint8 (H, W, 3), box in pixels
    for frame in frames:
        box, score, lost = tracker.update(frame)

Several targets: `init_all` and `update_all`. Everything is in docs/live.md of the repository. This tree is called `lib`
in the repository, as in others of its family, and `compresstracker` where it is installed; what other programs can rely
on are the names of this module.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .test.tracker.live import LiveTracker as Tracker
    from .test.tracker.live import Result
    from .test.tracker.lost import LostRule
    from .test.tracker.redetect import Redetection
    from .utils.errors import UserError

__all__ = ["LostRule", "Redetection", "Result", "Tracker", "UserError"]

_SOURCES = {"LostRule": (".test.tracker.lost", "LostRule"), "Redetection": (".test.tracker.redetect", "Redetection"),
            "Result": (".test.tracker.live", "Result"), "Tracker": (".test.tracker.live", "LiveTracker"),
            "UserError": (".utils.errors", "UserError")}


def __getattr__(name: str) -> Any:
    """The names above, imported when they are asked for: PyTorch takes seconds."""
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _SOURCES[name]
    return getattr(import_module(module, __name__), attribute)
