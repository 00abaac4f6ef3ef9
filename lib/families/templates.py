"""Rules that several families share: templates that change while a target is followed, and values by benchmark."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from .rules import Found, Rules, State

Value = TypeVar("Value")


def of_benchmark(values: Mapping[str, Value], benchmark: str) -> Value:
    """What a map of the official configurations (TEST.UPDATE_INTERVALS, TEST.UPDATE_THRESHOLD) says of a benchmark.

    Args:
        values: by name in capitals (LASOT, GOT10K_TEST, ...); DEFAULT for all others.
        benchmark: as tracking/test.py --dataset has it. Of names that begin it, the longest counts: VOT for vot2020.
            VOT22STB, VOT's short-term challenge with boxes of 2022, begins vot22 too.
    """
    fitting = [name for name in values if name != "DEFAULT" and benchmark.upper().startswith(name.removesuffix("STB"))]
    return values[max(fitting, key=len, default="DEFAULT")]


@dataclass(frozen=True)
class LatestTemplate(Rules):
    """Two templates: the first, and the latest that was cut at a sure box (SeqTrack, SUTrack).

    Attributes:
        interval: frames between two looks; the second template is cut anew where the number of the frame is a multiple.
        threshold: `certainty` must be above.
    """

    interval: int = 1
    threshold: float = 0.0

    def start(self, templates: Tensor, boxes_xywh: Tensor) -> State:
        """The first template twice."""
        return self.state(templates.repeat_interleave(2, dim=1), boxes_xywh.repeat_interleave(2, dim=1))

    def state(self, templates: Tensor, boxes_xywh: Tensor) -> State:
        """The state with templates (1, 2, ...) and their boxes (1, 2, 4) in 0..1 of the crops."""
        return State(templates, self.further(templates, boxes_xywh), kept=boxes_xywh)

    def certainty(self, found: Found) -> float:
        """How sure a frame's box is; its score where a family has no other measure."""
        return found.score

    def update(self, state: State, found: Found) -> State:
        if found.number % self.interval or not self.certainty(found) > self.threshold:
            return state
        template, box = found.template(found.box_xywh)
        return self.state(torch.cat([state.templates[:, :1], template], dim=1),
                          torch.cat([state.kept[:, :1], box], dim=1))
