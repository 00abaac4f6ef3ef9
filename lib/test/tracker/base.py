"""What every tracker of frames is to its user: any number of targets, and the case of one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...utils.parts import PartTimes


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
