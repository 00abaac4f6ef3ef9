"""The baseline that shows whether a benchmark is trivial: the first frame's template, matched by correlation."""

from typing import NamedTuple

import cv2
import numpy as np

from ..utils.errors import UserError


class BaselineResult(NamedTuple):
    """What `MatchTemplateTracker.track` gives: box [x, y, w, h] in pixels, correlation -1..1, the correlation map."""

    box_xywh: list[float]
    score: float
    score_map: np.ndarray


class MatchTemplateTracker:
    """Normalised correlation (`cv2.matchTemplate`, TM_CCOEFF_NORMED) of the unchanged first-frame template in a square
    around the last box whose side is `factor` times the root of the box's area. The box keeps its size."""

    def __init__(self, factor: float = 4.0) -> None:
        self.factor = factor
        self._template: np.ndarray | None = None
        self._box = [0.0, 0.0, 0.0, 0.0]

    def initialize(self, image: np.ndarray, box_xywh: list[float]) -> None:
        """Take the template: image uint8 (H, W, 3), box [x, y, w, h] in pixels.

        Raises:
            UserError: nothing of the box lies in the image.
        """
        x, y, w, h = (float(v) for v in box_xywh)
        left, top = max(0, round(x)), max(0, round(y))
        right, bottom = min(image.shape[1], round(x + w)), min(image.shape[0], round(y + h))
        if right <= left or bottom <= top:
            raise UserError(f"the first box {[x, y, w, h]} lies outside the image of {image.shape[1]}x{image.shape[0]}"
                            " pixels; give a box inside it")
        self._template = np.ascontiguousarray(image[top:bottom, left:right])
        self._box = [x, y, w, h]
        self._offset = (left - x, top - y)

    def track(self, image: np.ndarray) -> BaselineResult:
        """Find the template in the next image.

        Raises:
            UserError: called before `initialize`.
        """
        if self._template is None:
            raise UserError("MatchTemplateTracker.track needs initialize(image, box) first")
        x, y, w, h = self._box
        rows, columns = self._template.shape[:2]
        half = 0.5 * self.factor * (w * h) ** 0.5
        left, right = _window(x + w / 2, half, columns, image.shape[1])
        top, bottom = _window(y + h / 2, half, rows, image.shape[0])
        scores = cv2.matchTemplate(image[top:bottom, left:right], self._template, cv2.TM_CCOEFF_NORMED)
        scores = np.nan_to_num(scores, nan=-1.0, posinf=-1.0, neginf=-1.0)
        _, best, _, place = cv2.minMaxLoc(scores)
        self._box = [left + place[0] - self._offset[0], top + place[1] - self._offset[1], w, h]
        return BaselineResult(list(self._box), float(best), scores)


def _window(centre: float, half: float, least: int, length: int) -> tuple[int, int]:
    """First and last+1 pixel of a search window inside 0..length that holds at least `least` pixels."""
    half = max(half, least / 2 + 1)
    low = min(max(0, round(centre - half)), length - least)
    return low, max(min(length, round(centre + half)), low + least)
