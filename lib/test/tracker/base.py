"""What every tracker of frames is to its user: any number of targets, and the case of one; and what it can be given."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...utils.errors import UserError
from ...utils.parts import PartTimes

LARGEST_BOX = 2
"""Times as wide and high as the frame that a target's box may be: the square around it is made in memory, empty pixels
and all, a hundred times the frame at this limit."""


class TrackResult(NamedTuple):
    """What the tracker says about one frame."""

    box_xywh: list[float]
    """[x, y, w, h] in pixels of the frame, sub-pixel, clipped to the frame."""
    score: float
    """Highest value of `score_map`, 0..1; without a score map what the model gives as its `score`, or NaN."""
    score_map: np.ndarray | None
    """(S, S) float32 score map times the window: the map that the box was read from."""


class FrameTracker(ABC):
    """Finds targets in the next frame: `initialize` and `track` follow one, `start` and `step` any number.

    Attributes:
        parts: None, or where `step` notes how long its parts take.
    """

    def __init__(self) -> None:
        self.parts: PartTimes | None = None
        self._target: Any = None

    @property
    def box_xywh(self) -> list[float] | None:
        """Last box of the target of `initialize`, in pixels; None before."""
        return None if self._target is None else self._target.box_xywh

    def initialize(self, image: np.ndarray, box_xywh: Sequence[float]) -> None:
        """Remember the target that `track` follows: see `start`."""
        self._target = self.start(image, box_xywh)

    def track(self, image: np.ndarray) -> TrackResult:
        """Find the target in the next frame: see `step`.

        Raises:
            RuntimeError: `initialize` was not called.
        """
        if self._target is None:
            name = type(self).__name__
            raise RuntimeError(f"{name}.track called before {name}.initialize")
        return self.step([image], [self._target])[0]

    @abstractmethod
    def start(self, image: np.ndarray, box_xywh: Sequence[float]) -> Any:
        """A new target, which has a `box_xywh`.

        Args:
            image: (H, W, 3) RGB uint8.
            box_xywh: [x, y, w, h] of the target in pixels.
        """

    @abstractmethod
    def step(self, images: Sequence[np.ndarray], targets: Sequence[Any]) -> list[TrackResult]:
        """Find each target in its next frame and remember where it is.

        Args:
            images: the frame of each target, (H, W, 3) RGB uint8.
            targets: from `start`.
        """


def check_image(image: np.ndarray) -> tuple[int, int]:
    """(height, width) of an image that can be tracked in.

    Raises:
        UserError: it is not an (H, W, 3) uint8 array with at least one pixel.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"a frame must be a uint8 RGB array of shape (height, width, 3), found {found}")
    if image.size == 0:
        raise UserError(f"a frame has no pixels: shape {image.shape}")
    return image.shape[0], image.shape[1]


def check_box(box_xywh: Sequence[float], height: int, width: int) -> list[float]:
    """The box as four floats.

    Raises:
        UserError: not four finite numbers, no area, no pixel of the frame inside, or far larger than the frame.
    """
    expected = "expected x, y, w, h in pixels with w > 0 and h > 0"
    try:
        box = [float(value) for value in box_xywh]
    except (TypeError, ValueError) as error:
        raise UserError(f"the target box {box_xywh!r} is not four numbers; {expected}") from error
    if len(box) != 4 or not all(map(math.isfinite, box)) or box[2] <= 0 or box[3] <= 0:
        raise UserError(f"the target box {box} cannot be tracked; {expected}")
    x, y, w, h = box
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise UserError(f"the target box {box} lies outside the frame of {width} x {height} pixels")
    if w > LARGEST_BOX * width or h > LARGEST_BOX * height:
        raise UserError(f"the target box {box} is more than {LARGEST_BOX} times as large as the frame of {width} x "
                        f"{height} pixels; {expected}")
    return box
