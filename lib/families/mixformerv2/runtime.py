"""MixFormerV2's templates from frame to frame."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..rules import Found, Rules, State


class Best(NamedTuple):
    """What was best in the interval so far.

    Attributes:
        score: of the frame; -1 where none was sure.
        template: (1, 1, ...) cut from it; where none was sure the first template.
    """

    score: float
    template: Tensor


@dataclass(frozen=True)
class BestOfInterval(Rules):
    """Two templates: the first, and the one that was cut at the surest box of the interval before the current one; the
    first again where that interval had no sure box.

    Attributes:
        interval: frames.
        threshold: a box is sure whose score is above.
    """

    interval: int
    threshold: float = 0.5

    def start(self, templates: Tensor, boxes_xywh: Tensor) -> State:
        """The first template twice."""
        return State(templates.repeat_interleave(2, dim=1), {}, Best(-1.0, templates))

    def update(self, state: State, found: Found) -> State:
        first, best = state.templates[:, :1], state.kept
        if found.score > max(self.threshold, best.score):
            best = Best(found.score, found.template(found.box_xywh)[0])
        if found.number % self.interval:
            return state if best is state.kept else state._replace(kept=best)
        return State(torch.cat([first, best.template], dim=1), {}, Best(-1.0, first))
