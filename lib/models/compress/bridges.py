"""Bridges between a teacher and a student of different widths or resolutions (paper section 3.2: an input and an output
projection).

A bridge stands at each border between two stages, before the first and behind the last. Tokens cross it where one side
of a mixed pass hands them to the other, and where the student's features are compared with the teacher's. A pass of the
student alone crosses none: it has its own embedding, layers, norm and head of one width and one resolution. So nothing
is left of the bridges at test time, and the exported student is exactly what the last epochs of replacement training,
with p = 1, train. The linear maps learn with the student and are kept in the training states only.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..base import Tokens
from ..layers.resampling import resample


def regrid(tokens: Tokens, grids: Mapping[str, int]) -> Tokens:
    """Tokens with the named segments resampled to other grids (see `resample`); the others stay."""
    if all(segment.grid == grids.get(segment.name, segment.grid) for segment in tokens.segments):
        return tokens
    parts, segments = [], []
    for segment in tokens.segments:
        grid, part = grids.get(segment.name, segment.grid), tokens.part(segment.name)
        if grid != segment.grid:
            part = resample(part, segment.grid, grid)
        parts.append(part)
        segments.append(segment._replace(length=part.shape[1], grid=grid))
    return replace(tokens, x=torch.cat(parts, dim=1), segments=tuple(segments))


class Bridges(nn.Module):
    """Linear maps between the two widths, at `borders` places.

    Args:
        borders: number of stages + 1.
        student, teacher: widths of the tokens.
    """

    def __init__(self, borders: int, student: int, teacher: int):
        super().__init__()
        into_student = (nn.Linear(teacher, student) for _ in range(borders - 1))
        self.to_student = nn.ModuleList([nn.Identity(), *into_student])     # all chains begin with the student's tokens
        self.to_teacher = nn.ModuleList(nn.Linear(student, teacher) for _ in range(borders))

    @torch.no_grad()
    def start(self, axes: Tensor) -> None:
        """Let every bridge turn tokens to the student's axes (teacher's width, student's), or back."""
        for bridges, weight in ((self.to_student[1:], axes.T), (self.to_teacher, axes)):
            for bridge in bridges:
                bridge.weight.copy_(weight)
                bridge.bias.zero_()

    def forward(self, x: Tensor, border: int, student: bool) -> Tensor:
        """(B, L, C) tokens of the other side as the student (or else the teacher) takes them."""
        return (self.to_student if student else self.to_teacher)[border](x)
