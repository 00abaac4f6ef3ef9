"""Actor of a compression: replacement training with the three losses."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ...families.objective import mean_terms, search_frames
from ...losses.compression import mimic_loss
from ...models.base import Prediction, StagedTracker
from ...models.compress import Compressed, Targets, draw_stages, replacement_probability, stagewise_pattern
from .base import Actor, Prepared, by_frame


class CompressActor(Actor):
    """Trains the student of a `Compressor` (paper section 3)."""

    def probability(self, epoch: int) -> float:
        """Probability that a stage is replaced in `epoch`, or the share of those that are in stage-by-stage training; 1
        without replacement training (TRAIN.SUP_REPLACE)."""
        if not self.cfg.TRAIN.SUP_REPLACE:
            return 1.0
        compress = self.cfg.COMPRESS
        if self._stagewise:
            pattern = stagewise_pattern(epoch, self.cfg.TRAIN.EPOCH, len(self.module.stages))
            return sum(pattern) / len(pattern)
        return replacement_probability(epoch, self.cfg.TRAIN.EPOCH, compress.SCHEDULE, compress.P_INIT,
                                       compress.ALPHA1, compress.ALPHA2)

    def counts(self, batch: dict, epoch: int) -> Tensor | None:
        """As for other actors; where the guidance counts the teacher's boxes, too, its pass has to tell."""
        return None if self._guidance_counts else super().counts(batch, epoch)

    def prepare(self, batch: dict, epoch: int) -> Prepared:
        targets = tuple(self._targets(batch, epoch))
        counts = []
        for frame, target in zip(search_frames(batch), targets, strict=True):
            counts.append(self.objective.counts(frame["search_box"]))
            if self._guidance_counts:
                counts.append(self.objective.teacher_counts(target.prediction))
        return Prepared(torch.cat(counts), targets)

    @property
    def _guidance_counts(self) -> bool:
        """Whether the guidance divides by counts of the teacher's boxes."""
        return self.cfg.TRAIN.SUP_LOGIT and self.objective.guidance_counts

    def _targets(self, batch: dict, epoch: int) -> Iterator[Targets]:
        """The teacher's own pass of each search frame, with what its frame before hands on."""
        train, further, frames = self.cfg.TRAIN, self.objective.further(batch, epoch), search_frames(batch)
        for frame in frames:
            targets = self.module.targets(frame["template"], frame["search"], further, mimic=train.SUP_FEAT,
                                          guide=train.SUP_LOGIT or len(frames) > 1)
            yield targets
            if targets.prediction is not None:
                further = {**further, **self.objective.carried(targets.prediction)}

    def __call__(self, batch: dict, epoch: int, draws: torch.Generator,
                 prepared: Prepared | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss_of(batch, self._draw(epoch, draws), self.probability(epoch), prepared, epoch)

    @property
    def _stagewise(self) -> bool:
        return self.cfg.TRAIN.SUP_REPLACE and self.cfg.COMPRESS.SCHEDULE == "stagewise"

    def _draw(self, epoch: int, draws: torch.Generator) -> list[bool]:
        """Which stages the student runs."""
        if self._stagewise:
            return stagewise_pattern(epoch, self.cfg.TRAIN.EPOCH, len(self.module.stages))
        return draw_stages(len(self.module.stages), self.probability(epoch), draws, self.cfg.COMPRESS.FORCED_STUDENT)

    def idle_parameters(self, epoch: int, draws: Sequence[torch.Generator]) -> list[nn.Parameter]:
        used = [any(stage) for stage in zip(*(self._draw(epoch, draw) for draw in draws), strict=True)]
        return [parameter for layer, ran in zip(self.module.student.layers, used, strict=True) if not ran
                for parameter in layer.parameters() if parameter.requires_grad]

    def loss_of(self, batch: dict, pattern: list[bool], probability: float, prepared: Prepared | None = None,
                epoch: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch under a given replacement `pattern` (True = the student's stage)."""
        train = self.cfg.TRAIN
        targets = tuple(self._targets(batch, epoch)) if prepared is None else prepared.targets
        counts = by_frame(batch, None if prepared is None else prepared.counts)
        losses, terms, further, carried = [], [], self.objective.further(batch, epoch), {}
        for frame, target, known in zip(search_frames(batch), targets, counts, strict=True):
            if carried:     # the student's memory is not the teacher's, so nothing of its pass can be shared
                target = target._replace(chain=())
            out = self.net(frame["template"], frame["search"], pattern, further, guide=train.SUP_LOGIT,
                           mimic=train.SUP_FEAT, targets=target)
            loss, stats = self._frame_loss(out, frame, known)
            losses.append(loss)
            terms.append(stats)
            carried = self.objective.carried(out.student)
            further = {**further, **carried}
        loss, stats = torch.stack(losses).sum(), mean_terms(terms)
        return loss, {**stats, "Loss/total": loss.detach(), "p": torch.tensor(probability)}

    def _frame_loss(self, out: Compressed, frame: dict, counts: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a search frame; `counts` of the ground truth, then those of the teacher's boxes."""
        train, compress, objective = self.cfg.TRAIN, self.cfg.COMPRESS, self.objective
        own, teachers = counts, None
        if counts is not None and self._guidance_counts:
            own, teachers = counts.chunk(2)
        loss, stats = objective.loss(out.student, frame["search_box"], own)
        loss = compress.TRACK_WEIGHT * loss
        if train.SUP_LOGIT:
            guidance = compress.PRED_WEIGHT * objective.guidance(out.student, out.teacher, teachers)
            loss, stats["Loss/dst_logit"] = loss + guidance, guidance.detach()
        if train.SUP_FEAT:
            compared = compress.FEAT_STAGES or range(len(out.student_features))
            chosen = ([values[stage] for stage in compared]
                      for values in (out.student_features, out.teacher_features, out.segments))
            mimic = compress.FEAT_WEIGHT * mimic_loss(*chosen, compress.FEAT_FORM)
            loss, stats["Loss/dst_feat_all"] = loss + mimic, mimic.detach()
        return loss, stats

    def deployed(self) -> Callable[..., Prediction]:
        """The student alone."""
        return self.module.alone

    def model_for_saving(self) -> StagedTracker:
        return self.module.student

    def parameter_groups(self) -> list[dict]:
        """All that learns shares one rate, TRAIN.LR * TRAIN.BACKBONE_MULTIPLIER (4e-5 in the paper's recipe)."""
        train = self.cfg.TRAIN
        return [{"params": self.module.learning(), "lr": train.LR * train.BACKBONE_MULTIPLIER}]
