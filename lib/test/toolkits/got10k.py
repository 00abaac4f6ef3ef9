"""The tracker for the GOT-10k toolkit (got-10k/toolkit, package `got10k`), whose experiments run it on GOT-10k, OTB,
VOT, UAV123, NFS, LaSOT and others::

    from got10k.experiments import ExperimentGOT10k
    from .got10k import GOT10kTracker

    tracker = GOT10kTracker.from_config("compresstracker", "compresstracker_vitb_256_4")
    ExperimentGOT10k("data/got10k", subset="val").run(tracker)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...utils.errors import UserError
from ..tracker import Tracker

try:
    from got10k.trackers import Tracker as ToolkitTracker
    from PIL import ImageOps
except ImportError as missing:
    raise UserError(f"the GOT-10k toolkit cannot be imported ({missing}): pip install got10k") from missing


class GOT10kTracker(ToolkitTracker):
    """A `lib.test.tracker.Tracker` behind the toolkit's interface.

    It is deterministic, so the toolkit's experiments run it once where they repeat others three times. The toolkit
    decodes the frames itself, with Pillow; they are turned here as their Exif data say, which it leaves out. Boxes can
    still differ from those of `tracking/test.py` by what the decoders differ in (pictures of 16 bits become white).

    Args:
        tracker: with `initialize(image, box_xywh)` and `track(image)`.
        name: of the folder of results.
    """

    def __init__(self, tracker: Tracker, name: str):
        super().__init__(name=name, is_deterministic=True)
        self.tracker = tracker

    @classmethod
    def from_config(cls, script: str, config: str, *, name: str | None = None, **options: Any) -> "GOT10kTracker":
        """The tracker of a configuration with its weights.

        Args:
            script, config, options: see `Tracker.from_config`.
            name: None takes the configuration's.

        Raises:
            UserError: as `Tracker.from_config`.
        """
        return cls(Tracker.from_config(script, config, **options), name or config)

    def init(self, image: Any, box: Sequence[float]) -> None:
        """Remember the target: an RGB `PIL.Image` and [x, y, w, h] in pixels."""
        self.tracker.initialize(_turned(image), box)

    def update(self, image: Any) -> np.ndarray:
        """The box [x, y, w, h] in the next frame, (4,) float64."""
        return np.asarray(self.tracker.track(_turned(image)).box_xywh, dtype=np.float64)


def _turned(image: Any) -> np.ndarray:
    """A `PIL.Image` as (H, W, 3) uint8, as its Exif data say it is to be shown; an array stays as it is."""
    return image if isinstance(image, np.ndarray) else np.asarray(ImageOps.exif_transpose(image))
