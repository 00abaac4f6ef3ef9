"""Boxes as sequences of tokens (SeqTrack, section 3.2)."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...utils.boxes import xywh_to_xyxy, xyxy_to_cxcywh

_ORDER = {"xywh": (0, 1, 2, 3), "corner": (0, 1, 2, 3), "whxy": (2, 3, 0, 1)}
"""Format -> which number of the box each token is."""


class Vocabulary(NamedTuple):
    """The tokens: `bins` places of a coordinate, then the end and the start of a sequence.

    Attributes:
        bins: number of places.
        form: DATA.SEQ_FORMAT: xywh (centre, size), whxy (size, centre) or corner (left, top, right, bottom).
    """

    bins: int
    form: str = "xywh"

    @property
    def end(self) -> int:
        return self.bins

    @property
    def start(self) -> int:
        return self.bins + 1

    @property
    def size(self) -> int:
        """Number of tokens."""
        return self.bins + 2

    @property
    def windowed(self) -> tuple[int, int]:
        """Steps whose token is weighed with the window: those of the centre; of corners the first two, too, as in the
        official code."""
        return (2, 3) if self.form == "whxy" else (0, 1)

    def tokens(self, boxes_xywh: Tensor) -> Tensor:
        """(B, 4) in 0..1 of the crop, cut at its border -> (B, 4) int64 places, rounded down."""
        corners = xywh_to_xyxy(boxes_xywh).clamp(0, 1)
        numbers = corners if self.form == "corner" else xyxy_to_cxcywh(corners)
        return (numbers * (self.bins - 1)).long()[:, list(_ORDER[self.form])]

    def boxes(self, tokens: Tensor) -> Tensor:
        """(B, 4) places -> (B, 4) cxcywh in 0..1 of the crop, float32."""
        order = _ORDER[self.form]
        numbers = tokens[:, [order.index(number) for number in range(4)]] / (self.bins - 1)
        return xyxy_to_cxcywh(numbers) if self.form == "corner" else numbers

    def given(self, tokens: Tensor) -> Tensor:
        """Places (B, 4) -> (B, 5) what a decoder is given: the start, then they."""
        return torch.cat([tokens.new_full((len(tokens), 1), self.start), tokens], dim=1)

    def wanted(self, tokens: Tensor) -> Tensor:
        """Places (B, 4) -> (B, 5) what it is to say: they, then the end."""
        return torch.cat([tokens, tokens.new_full((len(tokens), 1), self.end)], dim=1)
