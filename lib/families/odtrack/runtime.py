"""What ODTrack keeps of a target: a memory of templates, cut in every frame, and the temporal token."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..elimination import EliminationRules
from ..rules import Found, State
from .model import TOKEN


class Memory(NamedTuple):
    """The frames that may become templates.

    Attributes:
        frames: by number, rising: the crop (1, 1, 3, h, w) and the target's box (1, 1, 4) in 0..1 of it.
        step: one frame of so many was kept.
    """

    frames: Mapping[int, tuple[Tensor, Tensor]]
    step: int = 1

    def nearest(self, number: int) -> int:
        """Of the frames that are there the nearest, and of two the earlier."""
        numbers = list(self.frames)
        after = bisect_left(numbers, number)
        return min(numbers[max(0, after - 1):after + 1], key=lambda kept: abs(kept - number))


@dataclass(frozen=True)
class MemoryRules(EliminationRules):
    """The templates of a frame are the first one and the middle frames of equal parts of what lies behind.

    Every frame's crop is cut at the predicted box, however sure that is, and kept (select_memory_frames in
    lib/test/tracker/odtrack.py of the repository). What the rule never asks for again is forgotten. Where more than
    `memory` are left, every second one goes, and the nearest stands in for one that the rule asks for.

    Attributes:
        width: of the token.
        number: N of TEST.TEMPLATE_NUMBER. From frame 2 N on there are N + 1 templates.
        on_device: TEST.MEMORY_THRESHOLD, the last frame whose crop stays on the device.
        memory: TEST.MEMORY_FRAMES, how many crops are kept at most; 0 for all.
    """

    width: int = 768
    number: int = 1
    on_device: int = 1000
    memory: int = 0

    def of_boxes(self, boxes_xywh: Tensor, side: int) -> dict[str, Tensor]:
        """`template_mask` (B, T, Lz) bool where not all tokens vote."""
        masks = super().of_boxes(boxes_xywh.flatten(0, 1).unsqueeze(1), side)
        return {name: mask.unflatten(0, boxes_xywh.shape[:2]) for name, mask in masks.items()}

    def start(self, templates: Tensor, boxes_xywh: Tensor) -> State:
        """The first template, and no token yet: zeros."""
        token = torch.zeros(len(templates), 1, self.width, device=templates.device)
        further = {**self.further(templates, boxes_xywh), TOKEN: token}
        return State(templates, further, Memory({0: (templates, boxes_xywh)}))

    def usual(self, templates: Tensor, boxes_xywh: Tensor) -> State:
        """N templates, as in the official count of the model's operations."""
        return self.start(templates.repeat_interleave(self.number, dim=1),
                          boxes_xywh.repeat_interleave(self.number, dim=1))

    def update(self, state: State, found: Found) -> State:
        memory = self._remember(state.kept, found)
        device = state.templates.device
        numbers = sorted({memory.nearest(number) for number in self.frames_of(found.number + 1)})
        chosen = zip(*(memory.frames[number] for number in numbers), strict=True)
        templates, boxes = (torch.cat([part.to(device) for part in parts], dim=1) for parts in chosen)
        return State(templates, {**self.further(templates, boxes), TOKEN: found.further[TOKEN]}, memory)

    def frames_of(self, number: int) -> list[int]:
        """The frames whose crops are the templates of frame `number`, which is 1 or later."""
        if number <= self.number:
            return list(range(number))
        if self.number == 1:
            return [0]
        part = number // self.number
        return sorted({0, *(index * part + part // 2 for index in range(self.number))})

    def _remember(self, memory: Memory, found: Found) -> Memory:
        """The memory with a frame's crop, without those that no later frame asks for, and no larger than allowed."""
        frames, step, number = dict(memory.frames), memory.step, found.number
        if number % step == 0:
            crop, box = found.template(found.box_xywh)
            frames[number] = (crop if number <= self.on_device else crop.cpu(), box)
        first = [*self.frames_of(number + 1), number + 1][1]     # it only grows
        frames = {kept: frame for kept, frame in frames.items() if kept >= first or not kept}
        while self.memory and len(frames) > self.memory:
            step *= 2
            frames = {kept: frame for kept, frame in frames.items() if kept % step == 0}
        return Memory(frames, step)
