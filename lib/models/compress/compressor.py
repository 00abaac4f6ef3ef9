"""The compressor: a frozen teacher and a trainable student that share one forward pass, stage by stage."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..base import Inputs, Prediction, Segment, StagedTracker, Tokens, rest_frozen
from ..layers.resampling import resize
from .bridges import Bridges, regrid


class Targets(NamedTuple):
    """Outcome of the teacher's own pass, without gradient.

    Attributes:
        prediction: what the teacher says, or None when it was not asked for.
        features: per stage, (B, L, C) float32 output tokens before the final norm, on the student's grids; empty when
            not asked for.
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
            alone (no gradient), before the final norm, in the teacher's width and on the student's grids; only tokens
            that the mixed chain still has. Empty when not asked for.
        segments: what these tokens are, per stage.
    """

    student: Prediction
    teacher: Prediction | None
    student_features: tuple[Tensor, ...]
    teacher_features: tuple[Tensor, ...]
    segments: tuple[tuple[Segment, ...], ...]


class Compressor(nn.Module):
    """Runs chains in which some stages are the student's and the others the teacher's.

    It knows no tracker family: only `embed`, `layers` and `predict`. The one frozen teacher serves both as the source
    of the targets and as the stand-in for stages that are not replaced.

    Where one side of a mixed pass hands its tokens to the other, they are mapped to its width (`bridges`) and resampled
    to its grids. The teacher has all tokens: those that the student's layers dropped come back with the values with
    which they entered the layer that dropped them, and are there from then on.

    Args:
        teacher, student: trackers with the same segments of tokens; widths and grids may differ.
        stages: teacher layers of each student layer (see `divide`).
        teacher_mode: `eval` keeps the teacher in eval mode (paper); `train` lets it follow the student's mode, so that
            drop path and batch statistics are active in it (released code).
        trainable: parts of the student that learn, among embed, layers, norm, head.
        teacher_dtype: number format of the teacher's own pass; None for that of the student's.
        crop_sizes: sides of the template and search crops that the student takes; None for those of the batch.
    """

    def __init__(self, teacher: StagedTracker, student: StagedTracker, stages: Sequence[range], *,
                 teacher_mode: str = "eval", trainable: Sequence[str] = ("embed", "layers", "norm", "head"),
                 teacher_dtype: torch.dtype | None = None, crop_sizes: tuple[int, int] | None = None):
        super().__init__()
        if len(stages) != student.depth:
            raise ValueError(f"{len(stages)} stages for a student of {student.depth} layers")
        self.teacher = teacher.requires_grad_(False)
        self.student = student
        self.stages = tuple(stages)
        self.teacher_mode = teacher_mode
        self.teacher_dtype = teacher_dtype
        self.crop_sizes = crop_sizes
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
        rest_frozen(self.student)
        return self

    def share_prefix(self) -> bool:
        """Let mixed passes start from the teacher's own pass where that is exactly what they would compute.

        The two are the same up to the first stage that the student runs if the student's embedding does not learn and
        equals the teacher's (all its parameters and buffers are compared here, so call this once the weights are
        loaded) on the same grids, the teacher's own pass has the number format of the mixed one, and the teacher is in
        eval mode (looked at in each pass).

        Returns:
            whether they can share.
        """
        student, teacher = (tracker.part_tensors("embed") for tracker in (self.student, self.teacher))
        self.shares_prefix = (self.teacher_dtype is None and self.student.token_grids == self.teacher.token_grids
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
        features = tuple(regrid(stage, self.student.token_grids).x.float() for stage in chain[1:]) if mimic else ()
        return Targets(prediction, features,
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
        if targets.chain:
            first, students = [*draws, True].index(True), False
            tokens = targets.chain[first]
        else:
            first, students = 0, True
            tokens = self.student.embed(Inputs.of(*self._student_crops(templates, search), further))
        whole, compared = tokens, [(x, x, tokens.segments) for x in targets.features[:first]]
        for index in range(first, len(self.stages)):
            if draws[index] != students:
                students = draws[index]
                tokens = whole = self._cross(whole, index, students)
            tokens = self._run_stage(index, students, tokens)
            if mimic:
                compared.append(self._comparable(tokens, targets.features[index], index + 1, students))
            whole = self._whole(tokens, whole)
        if not students:
            tokens = self._cross(tokens, len(self.stages), True)
        ours, theirs, segments = zip(*compared, strict=True) if compared else ((), (), ())
        return Compressed(self.student.predict(tokens), targets.prediction, ours, theirs, segments)

    def alone(self, templates: Tensor, search: Tensor, further: Mapping[str, Any] | None = None) -> Prediction:
        """The student by itself, on crops of the teacher's size."""
        return self.student(*self._student_crops(templates, search), further)

    def _student_crops(self, templates: Tensor, search: Tensor) -> list[Tensor]:
        """The crops in the student's size: the same region of the picture, so boxes in 0..1 stay what they are."""
        if self.crop_sizes is None:
            return [templates, search]
        return [resize(crops.flatten(0, -4), side).unflatten(0, crops.shape[:-3])
                for crops, side in zip((templates, search), self.crop_sizes, strict=True)]

    def _run_stage(self, index: int, replaced: bool, tokens: Tokens) -> Tokens:
        """One stage: the student's layer, or the teacher's layers it stands for."""
        if replaced:
            return self.student.run_layer(index, tokens)
        for number in self.stages[index]:
            tokens = self.teacher.run_layer(number, tokens)
        return tokens

    def _cross(self, tokens: Tokens, border: int, student: bool) -> Tokens:
        """All tokens of one side at a border between stages as the other side takes them: the student's, or the
        teacher's. The bridge works on the student's grids; since resampling adds up tokens with weights of sum 1, it is
        the same before and behind the bridge."""
        if student:
            return self._bridge(regrid(tokens, self.student.token_grids), border, True)
        return regrid(self._bridge(tokens, border, False), self.teacher.token_grids)

    def _bridge(self, tokens: Tokens, border: int, student: bool) -> Tokens:
        return tokens if self.bridges is None else replace(tokens, x=self.bridges(tokens.x, border, student))

    def _whole(self, tokens: Tokens, before: Tokens) -> Tokens:
        """A stage's tokens, with those that it or earlier ones dropped as they are in `before`, all tokens that the
        stage began with."""
        places = self.student.token_places(tokens)
        if places is None:
            return tokens
        return replace(before, x=before.x.to(tokens.x.dtype).scatter(1, _of_channels(places, tokens.x), tokens.x))

    def _comparable(self, tokens: Tokens, target: Tensor, border: int, student: bool
                    ) -> tuple[Tensor, Tensor, tuple[Segment, ...]]:
        """The tokens after a stage of the student, or of the teacher, in the teacher's width on the student's grids;
        the same tokens of the teacher's features (B, L, C); and what they are."""
        if not student:
            tokens = regrid(tokens, self.student.token_grids)
            return tokens.x, target, tokens.segments
        ours, places = self._bridge(tokens, border, False).x, self.student.token_places(tokens)
        return ours, target if places is None else target.gather(1, _of_channels(places, target)), tokens.segments

    def learning(self) -> list[nn.Parameter]:
        """The parameters that learn."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _teacher_precision(self, device_type: str) -> contextlib.AbstractContextManager:
        """Where the teacher's own pass has a number format of its own."""
        if self.teacher_dtype is None:
            return contextlib.nullcontext()
        half = self.teacher_dtype is not torch.float32
        return torch.autocast(device_type, dtype=self.teacher_dtype if half else None, enabled=half)


def _of_channels(places: Tensor, x: Tensor) -> Tensor:
    """(B, n) places as an index into the tokens of `x` (B, L, C), for all channels."""
    return places.unsqueeze(2).expand(-1, -1, x.shape[2])
