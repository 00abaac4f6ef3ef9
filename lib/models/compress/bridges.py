"""Bridges between a teacher and a student of different widths (paper section 3.2: an input and an output projection).

A bridge stands at each border between two stages, before the first and behind the last. Tokens cross it where one side
of a mixed pass hands them to the other, and where the student's features are compared with the teacher's. A pass of the
student alone crosses none: it has its own embedding, layers, norm and head of one width. So nothing is left of the
bridges at test time, and the exported student is exactly what the last epochs of replacement training, with p = 1,
train. They learn with the student and are kept in the training states only.
"""

from torch import Tensor, nn


class Bridges(nn.Module):
    """Linear maps between the two widths, at `borders` places.

    Args:
        borders: number of stages + 1.
        student, teacher: widths of the tokens.
    """

    def __init__(self, borders: int, student: int, teacher: int):
        super().__init__()
        self.widths = {True: student, False: teacher}
        self.to_student = nn.ModuleList(nn.Linear(teacher, student) for _ in range(borders))
        self.to_teacher = nn.ModuleList(nn.Linear(student, teacher) for _ in range(borders))

    def forward(self, x: Tensor, border: int, student: bool) -> Tensor:
        """(B, L, C) tokens as the student (or else the teacher) takes them; unchanged where they are so already."""
        if x.shape[-1] == self.widths[student]:
            return x
        return (self.to_student if student else self.to_teacher)[border](x)
