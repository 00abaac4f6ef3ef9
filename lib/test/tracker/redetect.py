"""Looking for a lost target in a wider area than its search crop."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from ...utils.errors import UserError

if TYPE_CHECKING:
    from .tracker import Target, Tracker, TrackResult


@dataclass(frozen=True)
class Redetection:
    """How to look for a lost target: in a grid of search crops, half a crop apart, around the last sure box.

    Crops keep the scale that the model was trained on, which one crop of a larger factor would not. All crops of all
    lost targets are one batch.

    Attributes:
        rings: of crops around the middle one: 1 gives 3 x 3 crops over twice the side of a search crop, 2 gives 5 x 5
            over three times the side. Crops whose middle is outside the frame are left out.
        accept: score from which a find is taken, in 0..1, without the window (there is no last position to favour).

    Raises:
        UserError: a value out of range.
    """

    rings: int = 1
    accept: float = 0.6

    def __post_init__(self):
        if not 1 <= self.rings <= 8:
            raise UserError(f"re-detection has {self.rings} rings of crops; expected 1 to 8")
        if not 0 <= self.accept <= 1:
            raise UserError(f"re-detection accepts from a score of {self.accept}; expected 0 to 1")

    def anchors(self, box_xywh: Sequence[float], factor: float, height: int, width: int) -> list[list[float]]:
        """The boxes that the crops lie around.

        Args:
            box_xywh: the last sure box, pixels.
            factor: crop side / sqrt(box area).
            height, width: of the frame.
        """
        x, y, w, h = box_xywh
        from ...utils.crop import crop_side

        step = crop_side(box_xywh, factor) / 2
        offsets = [step * number for number in range(-self.rings, self.rings + 1)]
        moved = [[x + right, y + down, w, h] for down, right in product(offsets, offsets)]
        inside = [box for box in moved if 0 <= box[0] + w / 2 < width and 0 <= box[1] + h / 2 < height]
        return inside or [list(box_xywh)]

    def look(self, tracker: "Tracker", image: np.ndarray, targets: "Sequence[Target]",
             boxes_xywh: Sequence[Sequence[float]]) -> "list[TrackResult | None]":
        """Look for lost targets in one frame; the targets do not move.

        Args:
            image: (H, W, 3) RGB uint8.
            targets: those that are lost.
            boxes_xywh: their last sure boxes.

        Returns:
            For each target the best find, or None where none scores enough.
        """
        grids = [self.anchors(box, tracker.search_factor, *image.shape[:2]) for box in boxes_xywh]
        owners = [index for index, grid in enumerate(grids) for _ in grid]
        results = tracker.find([image] * len(owners), [targets[index] for index in owners],
                               [anchor for grid in grids for anchor in grid], window=False)
        finds: list[TrackResult | None] = [None] * len(targets)
        for index, result in zip(owners, results, strict=True):
            best = finds[index]
            if result.score >= self.accept and (best is None or result.score > best.score):
                finds[index] = result
        return finds
