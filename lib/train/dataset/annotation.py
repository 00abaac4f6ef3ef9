"""Boxes of one sequence, as the sampler sees them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Annotation:
    """Boxes of one sequence."""

    boxes: np.ndarray
    """(N, 4) float32 xywh in pixels, NaN where there is none."""
    visible: np.ndarray
    """(N,) bool: there is a box and the target can be seen."""

    @property
    def valid(self) -> np.ndarray:
        """(N,) bool: there is a box of positive size."""
        return np.isfinite(self.boxes[:, 0])

    @classmethod
    def of(cls, boxes: np.ndarray, visible: np.ndarray | None = None) -> "Annotation":
        """From (N, 4) boxes with NaN where absent and (N,) labels, None where every box is visible."""
        valid = np.isfinite(boxes[:, 0])
        return cls(boxes.astype(np.float32), valid if visible is None else visible & valid)
