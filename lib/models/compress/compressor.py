"""The compressor: a frozen teacher and a trainable student that share one forward pass, stage by stage."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..base import Inputs, Prediction, Segment, StagedTracker, Tokens
from .bridges import Bridges


class Targets(NamedTuple):
    """Outcome of the teacher's own pass, without gradient.

    Attributes:
        prediction: what the teacher says, or None when it was not asked for.
        features: per stage, (B, L, C) float32 output tokens before the final norm; empty when not asked for.
        chain: the tokens before each stage and after the last, where a mixed pass may start from them; else empty.
    """

    prediction: Prediction | None = None
    features: tuple[Tensor, ...] = ()
    chain: tuple[Tokens, ...] = ()


class Compressed(NamedTuple):
    """Outcome of a mixed pass.

    Attributes:
        student: prediction of the mixed chain, through the student's norm and head.
        teacher: prediction of the teacher alone, or None when it was not asked for.
        student_features, teacher_features: per stage, (B, L, C) output tokens of the mixed chain and of the teacher
            alone (no gradient), before the final norm and in the teacher's width; empty when not asked for.
        segments: what the tokens of the features are.
    """

    student: Prediction
    teacher: Prediction | None
    student_features: tuple[Tensor, ...]
    teacher_features: tuple[Tensor, ...]
    segments: tuple[Segment, ...]


class Compressor(nn.Module):
    """Runs chains in which some stages are the student's and the others the teacher's.

    It knows no tracker family: only `embed`, `layers` and `predict`. The one frozen teacher serves both as the source
    of the targets and as the stand-in for stages that are not replaced.

    Args:
        teacher, student: trackers with the same tokens; where their widths differ, there are `bridges`.
        stages: teacher layers of each student layer (see `divide`).
        teacher_mode: `eval` keeps the teacher in eval mode (paper); `train` lets it follow the student's mode, so that
            drop path and batch statistics are active in it (released code).
        trainable: parts of the student that learn, among embed, layers, norm, head.
        teacher_dtype: number format of the teacher's own pass; None for that of the student's.
    """

    def __init__(self, teacher: StagedTracker, student: StagedTracker, stages: Sequence[range], *,
                 teacher_mode: str = "eval", trainable: Sequence[str] = ("embed", "layers", "norm", "head"),
                 teacher_dtype: torch.dtype | None = None):
        super().__init__()
        if len(stages) != student.depth:
            raise ValueError(f"{len(stages)} stages for a student of {student.depth} layers")
        self.teacher = teacher.requires_grad_(False)
        self.student = student
        self.stages = tuple(stages)
        self.teacher_mode = teacher_mode
        self.teacher_dtype = teacher_dtype
        self.shares_prefix = False
        widths = student.embed_dim, teacher.embed_dim
        self.bridges = Bridges(len(stages) + 1, *widths) if len(set(widths)) > 1 else None
        for part, parameters in student.parts().items():
            for parameter in parameters:
                parameter.requires_grad_(parameter.requires_grad and part in trainable)
        self.train()

    def train(self, mode: bool = True) -> "Compressor":
        """Training mode of the student; the teacher follows only with `teacher_mode='train'`.

        Modules of the student whose parameters are all frozen stay in eval mode with all that is inside them: frozen
        layers drop no paths, and a frozen head keeps its batch statistics.
        """
        super().train(mode)
        self.teacher.train(mode and self.teacher_mode == "train")
        for module in self.student.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    def share_prefix(self) -> bool:
        """Let mixed passes start from the teacher's own pass where that is exactly what they would compute.

        The two are the same up to the first stage that the student runs if the student's embedding does not learn and
        equals the teacher's (all its parameters and buffers are compared here, so call this once the weights are
        loaded), the
        teacher's own pass has the number format of the mixed one, and the teacher is in eval mode (looked at in each
        pass).

        Returns:
            whether they can share.
        """
        student, teacher = (tracker.part_tensors("embed") for tracker in (self.student, self.teacher))
        self.shares_prefix = (self.teacher_dtype is None
                              and not any(tensor.requires_grad for tensor in student.values())
                              and student.keys() == teacher.keys()
                              and all(torch.equal(tensor, teacher[name]) for name, tensor in student.items()))
        return self.shares_prefix

    @torch.no_grad()
    def targets(self, templates: Tensor, search: Tensor, further: Mapping[str, Any] | None = None, *,
                guide: bool = True, mimic: bool = True) -> Targets:
        """The teacher's own pass, as far as it is asked for.

        Args:
            templates, search, further: see `StagedTracker.forward`.
            guide: give the teacher's prediction.
            mimic: give the stage features.
        """
        if not (guide or mimic):
            return Targets()
        with self._teacher_precision(search.device.type):
            tokens = self.teacher.embed(Inputs.of(templates, search, further))
            chain = [tokens]
            for index in range(len(self.stages)):
                tokens = self._run_stage(index, False, tokens)
                chain.append(tokens)
            prediction = self.teacher.predict(tokens) if guide else None
        return Targets(prediction, tuple(stage.x.float() for stage in chain[1:]) if mimic else (),
                       tuple(chain) if self.shares_prefix and not self.teacher.training else ())

    def forward(self, templates: Tensor, search: Tensor, draws: Sequence[bool],
                further: Mapping[str, Any] | None = None, *, guide: bool = True, mimic: bool = True,
                targets: Targets | None = None) -> Compressed:
        """One mixed pass, and the teacher's own pass where its outputs are needed.

        Args:
            templates, search, further: see `StagedTracker.forward`.
            draws: per stage, True to run the student's layer.
            guide: give the teacher's prediction.
            mimic: give the stage features.
            targets: of the same crops, if the teacher's own pass was done before.
        """
        if len(draws) != len(self.stages):
            raise ValueError(f"{len(draws)} draws for {len(self.stages)} stages")
        if targets is None:
            targets = self.targets(templates, search, further, guide=guide, mimic=mimic)
        first = 0
        if targets.chain:
            first = [*draws, True].index(True)
            tokens = targets.chain[first]
        else:
            tokens = self.student.embed(Inputs.of(templates, search, further))
        features = list(targets.features[:first])
        for index in range(first, len(self.stages)):
            tokens = self._run_stage(index, draws[index], tokens)
            if mimic:
                features.append(self._cross(tokens, index + 1, student=False).x)
        last = self._cross(tokens, len(self.stages), student=True)
        return Compressed(self.student.predict(last), targets.prediction, tuple(features), targets.features,
                          tokens.segments)

    def _run_stage(self, index: int, replaced: bool, tokens: Tokens) -> Tokens:
        """One stage: the student's layer, or the teacher's layers it stands for."""
        tokens = self._cross(tokens, index, replaced)
        if replaced:
            return self.student.run_layer(index, tokens)
        for number in self.stages[index]:
            tokens = self.teacher.run_layer(number, tokens)
        return tokens

    def _cross(self, tokens: Tokens, border: int, student: bool) -> Tokens:
        """The tokens at a border between stages in the width of the student, or of the teacher."""
        return tokens if self.bridges is None else replace(tokens, x=self.bridges(tokens.x, border, student))

    def learning(self) -> list[nn.Parameter]:
        """The parameters that learn."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _teacher_precision(self, device_type: str) -> contextlib.AbstractContextManager:
        """Where the teacher's own pass has a number format of its own."""
        if self.teacher_dtype is None:
            return contextlib.nullcontext()
        half = self.teacher_dtype is not torch.float32
        return torch.autocast(device_type, dtype=self.teacher_dtype if half else None, enabled=half)
