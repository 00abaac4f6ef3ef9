"""Actor of a compression: replacement training with the three losses."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...models.base import Prediction, StagedTracker
from ...models.compress import draw_stages, replacement_probability
from ...utils.boxes import cxcywh_to_xywh
from ..losses.compression import mimic_loss
from .base import Actor, Prepared


class CompressActor(Actor):
    """Trains the student of a `Compressor` (paper section 3)."""

    def probability(self, epoch: int) -> float:
        """Probability that a stage is replaced in `epoch`; 1 without replacement training (TRAIN.SUP_REPLACE)."""
        if not self.cfg.TRAIN.SUP_REPLACE:
            return 1.0
        compress = self.cfg.COMPRESS
        return replacement_probability(epoch, self.cfg.TRAIN.EPOCH, compress.SCHEDULE, compress.P_INIT,
                                       compress.ALPHA1, compress.ALPHA2)

    def counts(self, batch: dict, epoch: int) -> Tensor | None:
        """As for other actors; where the teacher's boxes make heat maps, too, its pass has to tell."""
        return None if self._guides_map else super().counts(batch, epoch)

    def prepare(self, batch: dict, epoch: int) -> Prepared:
        train = self.cfg.TRAIN
        targets = self.module.targets(batch["template"], batch["search"], guide=train.SUP_LOGIT, mimic=train.SUP_FEAT)
        boxes = [batch["search_box"]]
        if self._guides_map:
            boxes.append(cxcywh_to_xywh(targets.prediction.boxes.squeeze(1)))
        return Prepared(torch.stack([self._peaks(box) for box in boxes]), targets)

    @property
    def _guides_map(self) -> bool:
        """Whether the guidance has a heat map."""
        return self.cfg.TRAIN.SUP_LOGIT and self.cfg.COMPRESS.PRED_FORM == "full"

    def __call__(self, batch: dict, epoch: int, draws: torch.Generator,
                 prepared: Prepared | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss_of(batch, self._draw(epoch, draws), self.probability(epoch), prepared)

    def _draw(self, epoch: int, draws: torch.Generator) -> list[bool]:
        """Which stages the student runs."""
        return draw_stages(len(self.module.stages), self.probability(epoch), draws, self.cfg.COMPRESS.FORCED_STUDENT)

    def idle_parameters(self, epoch: int, draws: Sequence[torch.Generator]) -> list[nn.Parameter]:
        used = [any(stage) for stage in zip(*(self._draw(epoch, draw) for draw in draws), strict=True)]
        return [parameter for layer, ran in zip(self.module.student.layers, used, strict=True) if not ran
                for parameter in layer.parameters() if parameter.requires_grad]

    def loss_of(self, batch: dict, pattern: list[bool], probability: float,
                prepared: Prepared | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch under a given replacement `pattern` (True = the student's stage)."""
        train, compress = self.cfg.TRAIN, self.cfg.COMPRESS
        targets, peaks = (None, [None]) if prepared is None else (prepared.targets, prepared.counts)
        out = self.net(batch["template"], batch["search"], pattern, guide=train.SUP_LOGIT, mimic=train.SUP_FEAT,
                       targets=targets)
        loss, stats = self.tracking_loss(out.student, batch["search_box"], peaks[0])
        loss = compress.TRACK_WEIGHT * loss
        if train.SUP_LOGIT:
            guidance = compress.PRED_WEIGHT * self.guidance_loss(out.student, out.teacher, peaks[-1])
            loss, stats["Loss/dst_logit"] = loss + guidance, guidance.detach()
        if train.SUP_FEAT:
            mimic = compress.FEAT_WEIGHT * mimic_loss(out.student_features, out.teacher_features, out.template_length,
                                                      compress.FEAT_FORM)
            loss, stats["Loss/dst_feat_all"] = loss + mimic, mimic.detach()
        stats["Loss/total"] = loss.detach()
        stats["p"] = torch.tensor(probability)
        return loss, stats

    def predict(self, batch: dict, epoch: int) -> Prediction:
        """The student alone: what will be deployed."""
        return self.module.student(batch["template"], batch["search"])

    def model_for_saving(self) -> StagedTracker:
        return self.module.student

    def parameter_groups(self) -> list[dict]:
        """All that learns shares one rate, TRAIN.LR * TRAIN.BACKBONE_MULTIPLIER (4e-5 in the paper's recipe)."""
        train = self.cfg.TRAIN
        return [{"params": self.module.learning(), "lr": train.LR * train.BACKBONE_MULTIPLIER}]
