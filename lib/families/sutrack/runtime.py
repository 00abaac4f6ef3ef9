"""What SUTrack keeps of a target: one template, or the first and the latest sure one, with their boxes."""

from dataclasses import dataclass

from torch import Tensor

from ..rules import Found, Rules, State
from ..templates import LatestTemplate


@dataclass(frozen=True)
class TypedTemplates(LatestTemplate):
    """Templates whose tokens are told by the target's box what they are of.

    Attributes:
        number: of templates: 1, which stays, or 2.
    """

    number: int = 2

    def further(self, templates: Tensor, boxes_xywh: Tensor) -> dict[str, Tensor]:
        return {"template_boxes": boxes_xywh}

    def start(self, templates: Tensor, boxes_xywh: Tensor) -> State:
        return super().start(templates, boxes_xywh) if self.number > 1 else Rules.start(self, templates, boxes_xywh)

    def update(self, state: State, found: Found) -> State:
        return super().update(state, found) if self.number > 1 else state
