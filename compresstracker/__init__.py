"""Track with a trained model in your own program.

::

    from compresstracker import Tracker

    tracker = Tracker.from_pretrained("CompressTracker_ep0500.pth.tar", device="auto")
    tracker.init(first_frame, [x, y, w, h])              # RGB uint8 (H, W, 3), box in pixels
    for frame in frames:
        box, score, lost = tracker.update(frame)

Several targets: `init_all` and `update_all`. Everything is in docs/live.md of the repository. The code is the tree
`lib`, which is installed beside this package; this is the part of it that other programs can rely on.
"""

from pathlib import Path

import lib

if lib.__file__ is None or Path(lib.__file__).resolve().parents[1] != Path(__file__).resolve().parents[1]:
    raise ImportError(f"compresstracker needs the package `lib` beside it, but Python finds another one first: "
                      f"{lib.__file__ or list(lib.__path__)}. Run from another folder, or take that one off the path "
                      "(PYTHONPATH): the repositories of other trackers have a folder of that name too.")

from lib.test.tracker.live import LiveTracker as Tracker  # noqa: E402
from lib.test.tracker.live import Result  # noqa: E402
from lib.test.tracker.lost import LostRule  # noqa: E402
from lib.test.tracker.redetect import Redetection  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402

__all__ = ["LostRule", "Redetection", "Result", "Tracker", "UserError"]
