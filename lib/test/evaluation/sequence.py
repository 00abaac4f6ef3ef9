"""What the runner tracks and the analysis scores: one sequence of a test set."""

from dataclasses import dataclass

import numpy as np

from ...utils.errors import UserError
from ...utils.frames import FrameSource
from ...utils.sequences import no_start


@dataclass(frozen=True)
class Sequence:
    """A sequence to track."""

    name: str
    dataset: str
    """lasot, got10k, trackingnet, ..., folder:<folder's name> or vot:<folder's name>; decides where results lie."""
    frames: FrameSource
    ground_truth: np.ndarray
    """(N, 4) float xywh in pixels; NaN where the target is absent or (test servers) the box is kept secret."""
    visible: np.ndarray | None = None
    """(N,) bool; None when the data set does not say."""
    object_class: str = ""
    """What the target is, in the benchmark's words; empty when it does not say."""
    attributes: tuple[str, ...] = ()
    """The benchmark's short names of this sequence's challenges; `BENCHMARKS[name].attributes` spells them out."""
    box_file: str = ""
    """Where the boxes are from, for messages."""
    earlier: np.ndarray | None = None
    """(K, 4) boxes of the K frames of the video before the first one that is tracked; NaN where not annotated."""

    @property
    def length(self) -> int:
        """Number of frames to track."""
        return len(self.frames)

    def first_box(self) -> list[float]:
        """[x, y, w, h] that the tracker starts from.

        Raises:
            UserError: the target is absent in the first frame.
        """
        box = self.ground_truth[0].tolist()
        if not np.isfinite(box).all():
            raise UserError(no_start(self.box_file or self.name, self.ground_truth))
        return box
