"""Actor of a compression: replacement training with the three losses."""

import torch
from torch import Tensor

from lib.models.base import Prediction, StagedTracker
from lib.models.compress import draw_stages, replacement_probability
from lib.train.actors.base import Actor
from lib.train.losses.compression import mimic_loss


class CompressActor(Actor):
    """Trains the student of a `Compressor` (paper section 3)."""

    def probability(self, epoch: int) -> float:
        """Probability that a stage is replaced in `epoch`; 1 without replacement training (TRAIN.SUP_REPLACE)."""
        if not self.cfg.TRAIN.SUP_REPLACE:
            return 1.0
        compress = self.cfg.COMPRESS
        return replacement_probability(epoch, self.cfg.TRAIN.EPOCH, compress.SCHEDULE, compress.P_INIT,
                                       compress.ALPHA1, compress.ALPHA2)

    def __call__(self, batch: dict, epoch: int, draws: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        probability = self.probability(epoch)
        pattern = draw_stages(len(self.module.stages), probability, draws, self.cfg.COMPRESS.FORCED_STUDENT)
        return self.loss_of(batch, pattern, probability)

    def loss_of(self, batch: dict, pattern: list[bool],
                probability: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch under a given replacement `pattern` (True = the student's stage)."""
        train, compress = self.cfg.TRAIN, self.cfg.COMPRESS
        out = self.net(batch["template"], batch["search"], pattern, guide=train.SUP_LOGIT, mimic=train.SUP_FEAT)
        loss, stats = self.tracking_loss(out.student, batch["search_box"])
        loss = compress.TRACK_WEIGHT * loss
        if train.SUP_LOGIT:
            guidance = compress.PRED_WEIGHT * self.guidance_loss(out.student, out.teacher)
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
        trainable = [p for p in self.module.student.parameters() if p.requires_grad]
        return [{"params": trainable, "lr": train.LR * train.BACKBONE_MULTIPLIER}]
