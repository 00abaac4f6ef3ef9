"""How a tracker is used from frame to frame: what it keeps of a target is a value that goes in and out.

The loop is the same for all families (`lib.test.tracker.Tracker`): crop the search region, run the model, read the box,
clip it. A family says what the model takes besides, and what changes after a frame.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


class State(NamedTuple):
    """What a tracker keeps of one target.

    Attributes:
        templates: (1, T, 3, h, w) crops, normalised.
        further: `Inputs.further` of the next frame, (1, ...) tensors.
        kept: what the rules themselves remember (numbers of frames, best scores, ...).
    """

    templates: Tensor
    further: Mapping[str, Tensor]
    kept: Any = None


class Found(NamedTuple):
    """A frame in which a target was found.

    Attributes:
        number: of the frame, 1 for the first after the one that gave the template.
        box_xywh: in pixels.
        score: highest value of the (weighted) score map; NaN without one.
        further: what the model gave besides (`Prediction.further`), (1, ...) tensors.
        template: cuts a template crop around a box [x, y, w, h] in pixels of this frame: (1, 1, 3, h, w), normalised,
            and the box in 0..1 of the crop (1, 1, 4).
    """

    number: int
    box_xywh: list[float]
    score: float
    further: Mapping[str, Tensor]
    template: Callable[[list[float]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Rules:
    """One template from the first frame, which stays. Other rules derive from this."""

    def further(self, templates: Tensor, boxes_xywh: Tensor) -> dict[str, Tensor]:
        """What the model takes besides crops.

        Args:
            templates: (B, T, 3, h, w) crops, or (B, T, h, w, 3) pixels.
            boxes_xywh: (B, T, 4) the targets in 0..1 of them.

        Returns:
            (B, ...) tensors by name; always the same names.
        """
        return {}

    def start(self, templates: Tensor, boxes_xywh: Tensor) -> State:
        """The state of a new target: its template (1, 1, 3, h, w) and the box (1, 1, 4) in 0..1 of it."""
        return State(templates, self.further(templates, boxes_xywh))

    def usual(self, templates: Tensor, boxes_xywh: Tensor) -> State:
        """A state whose tensors have the sizes of most frames of a video, for profiles and exports: that of `start`,
        where sizes stay. The arguments are those of `start`, but may be of several targets, (B, ...)."""
        return self.start(templates, boxes_xywh)

    def update(self, state: State, found: Found) -> State:
        """The state for the next frame; the same object where nothing changes."""
        return state
