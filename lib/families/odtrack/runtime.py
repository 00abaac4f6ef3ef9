"""What ODTrack keeps of a target: a memory of templates, cut in every frame, and the temporal token."""

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
        step: every so manieth frame was kept, and frame 0.
    """

    frames: Mapping[int, tuple[Tensor, Tensor]]
    step: int = 1


@dataclass(frozen=True)
class MemoryRules(EliminationRules):
    """The templates of a frame are the first one and the middle frames of equal parts of what lies behind.

    Every frame's crop is cut at the predicted box, however sure that is, and kept (select_memory_frames in
    lib/test/tracker/odtrack.py of the repository). What the rule never asks for again is forgotten, and what it asks for
    is no other frame until more than `memory` are left.

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

    def further(self, templates: Tensor, boxes_xywh: Tensor) -> dict[str, Tensor]:
        """`template_mask` (B, T, Lz) bool where not all tokens vote."""
        masks = super().further(templates, boxes_xywh.flatten(0, 1).unsqueeze(1))
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
        chosen = [memory.frames[number] for number in self.frames_of(found.number + 1, memory)]
        templates, boxes = (torch.cat([part.to(device) for part in parts], dim=1) for parts in zip(*chosen, strict=True))
        return State(templates, {**self.further(templates, boxes), TOKEN: found.further[TOKEN]}, memory)

    def frames_of(self, number: int, memory: Memory) -> list[int]:
        """The frames whose crops are the templates of a frame: the rule's, or the ones kept before them.

        Args:
            number: of the frame, from 1.
        """
        wanted = range(number)
        if number > self.number:
            part = number // self.number
            wanted = [0, *(index * part + part // 2 for index in range(self.number))] if self.number > 1 else [0]
        return sorted({frame // memory.step * memory.step for frame in wanted})

    def _remember(self, memory: Memory, found: Found) -> Memory:
        """The memory with a frame's crop, without those that no later frame asks for, and no larger than allowed."""
        frames, step = dict(memory.frames), memory.step
        if self.number == 1:
            return memory
        if found.number % step == 0:
            crop, box = found.template(found.box_xywh)
            frames[found.number] = (crop if found.number <= self.on_device else crop.cpu(), box)
        while True:
            first = self._first_wanted(found.number + 1) // step * step
            frames = {number: frame for number, frame in frames.items()
                      if number % step == 0 and (number >= first or not number)}
            if not self.memory or len(frames) <= self.memory:
                return Memory(frames, step)
            step *= 2

    def _first_wanted(self, number: int) -> int:
        """The first frame behind frame 0 that the rule asks for in this frame or a later one."""
        return number // self.number // 2 if number > self.number else 0
