"""The compressor: a frozen teacher and a trainable student that share one forward pass, stage by stage."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.models.base import Prediction, StagedTracker, Tokens


class Compressed(NamedTuple):
    """Outcome of a mixed pass.

    Attributes:
        student: prediction of the mixed chain, through the student's norm and head.
        teacher: prediction of the teacher alone, or None when it was not asked for.
        student_features, teacher_features: per stage, (B, L, C) output tokens of the mixed chain and of the teacher
            alone (no gradient), before the final norm; empty when not asked for.
        template_length: number of template tokens at the front of the features.
    """

    student: Prediction
    teacher: Prediction | None
    student_features: tuple[Tensor, ...]
    teacher_features: tuple[Tensor, ...]
    template_length: int


class Compressor(nn.Module):
    """Runs chains in which some stages are the student's and the others the teacher's.

    It knows no tracker family: only `embed`, `layers` and `predict`. The one frozen teacher serves both as the source
    of the targets and as the stand-in for stages that are not replaced.

    Args:
        teacher, student: trackers of the same token shape.
        stages: teacher layers of each student layer (see `divide`).
        teacher_mode: `eval` keeps the teacher in eval mode (paper); `train` lets it follow the student's mode, so that
            drop path and batch statistics are active in it (released code).
        trainable: parts of the student that learn, among embed, layers, norm, head.
    """

    def __init__(self, teacher: StagedTracker, student: StagedTracker, stages: Sequence[range], *,
                 teacher_mode: str = "eval", trainable: Sequence[str] = ("embed", "layers", "norm", "head")):
        super().__init__()
        if len(stages) != student.depth:
            raise ValueError(f"{len(stages)} stages for a student of {student.depth} layers")
        self.teacher = teacher.requires_grad_(False)
        self.student = student
        self.stages = tuple(stages)
        self.teacher_mode = teacher_mode
        for part, parameters in student.parts().items():
            for parameter in parameters:
                parameter.requires_grad_(parameter.requires_grad and part in trainable)
        self.train()

    def train(self, mode: bool = True) -> "Compressor":
        """Training mode of the student; the teacher follows only with `teacher_mode='train'`.

        Modules of the student whose own parameters are all frozen stay in eval mode: a frozen head also keeps its
        batch statistics.
        """
        super().train(mode)
        self.teacher.train(mode and self.teacher_mode == "train")
        for module in self.student.modules():
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.training = False
        return self

    def forward(self, template: Tensor, search: Tensor, draws: Sequence[bool], *, guide: bool = True,
                mimic: bool = True) -> Compressed:
        """One mixed pass, and the teacher's own pass where its outputs are needed.

        Args:
            template: (B, 3, h, w); search: (B, 3, H, W); both normalised.
            draws: per stage, True to run the student's layer.
            guide: give the teacher's prediction.
            mimic: give the stage features.
        """
        tokens = self.student.embed(template, search)
        student_features: list[Tensor] = []
        for index, replaced in zip(range(len(self.stages)), draws, strict=True):
            tokens = self._run_stage(index, replaced, tokens)
            if mimic:
                student_features.append(tokens.x)
        prediction = self.student.predict(tokens)

        teacher_prediction, teacher_features = None, []
        if guide or mimic:
            with torch.no_grad():
                target = self.teacher.embed(template, search)
                for index in range(len(self.stages)):
                    target = self._run_stage(index, False, target)
                    if mimic:
                        teacher_features.append(target.x)
                if guide:
                    teacher_prediction = self.teacher.predict(target)
        return Compressed(prediction, teacher_prediction, tuple(student_features), tuple(teacher_features),
                          tokens.template_length)

    def _run_stage(self, index: int, replaced: bool, tokens: Tokens) -> Tokens:
        """One stage: the student's layer, or the teacher's layers it stands for."""
        if replaced:
            return self.student.layers[index](tokens)
        for number in self.stages[index]:
            tokens = self.teacher.layers[number](tokens)
        return tokens
