"""What MixFormerV2 learns: boxes, or its score head alone; and what it learns from a teacher."""

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...config import Config
from ...models.base import Prediction
from ...utils.boxes import complete_box_iou, cxcywh_to_xyxy, xywh_to_xyxy
from ..objective import Objective

FADING_EPOCHS = 40
"""In how many epochs layers fade out (the official code has the number written in)."""


def remove_rate(epoch: int) -> float:
    """What is left in `epoch`, counted from 1, of a layer that fades out: half a cosine (section 3.2, progressive depth
    pruning; one step ahead, as in the official code)."""
    return (1 + math.cos(math.pi * min(epoch + 1, FADING_EPOCHS) / FADING_EPOCHS)) / 2


def edge_kl(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence from the teacher's edges to the student's, mean over batch and edges (section 3.2).

    Args:
        logits: (B, 4, bins) the student's.
        teacher: (B, 4, bins) probabilities.
    """
    return F.kl_div(F.log_softmax(logits, dim=-1), teacher, reduction="none").sum(dim=-1).mean()


class EdgeObjective(Objective):
    """CIoU and L1 of the box; with TRAIN.TRAIN_SCORE the cross-entropy of the score alone.

    A sample whose search crop does not show the target has a box without area.
    """

    def __init__(self, cfg: Config):
        super().__init__(cfg)
        self.fades = bool(cfg.student.TRAIN.REMOVE_LAYERS)

    def further(self, batch: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        """`remove_rate`, where layers fade out."""
        return {"remove_rate": remove_rate(epoch)} if self.fades else {}

    def loss(self, prediction: Prediction, target_xywh: Tensor, counts: Tensor | None = None
             ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`; nothing is divided by `counts`."""
        train = self.cfg.TRAIN
        if train.TRAIN_SCORE:
            logit, shown = prediction.further["score_logit"], (target_xywh[:, 2:] > 0).all(dim=1)       # (B,)
            score = F.binary_cross_entropy_with_logits(logit, shown.float())
            loss = train.SCORE_WEIGHT * score
            terms = {"Loss/score": score, "accuracy": ((logit > 0) == shown).float().mean()}
        else:
            loss, terms = self._box_loss(prediction.boxes, xywh_to_xyxy(target_xywh).clamp(0, 1))
        return loss, {name: value.detach() for name, value in {"Loss/total": loss, **terms}.items()}

    def _box_loss(self, boxes: Tensor, target_xyxy: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted CIoU and L1 of boxes (B, 1, 4) cxcywh against (B, 4), and the terms."""
        train, predicted = self.cfg.TRAIN, cxcywh_to_xyxy(boxes).flatten(0, 1)
        ciou, iou = complete_box_iou(predicted, target_xyxy)
        ciou_loss, l1 = (1 - ciou).mean(), F.l1_loss(predicted, target_xyxy)
        return train.IOU_WEIGHT * ciou_loss + train.L1_WEIGHT * l1, {"Loss/ciou": ciou_loss, "Loss/l1": l1,
                                                                     "IoU": iou.mean()}

    @property
    def guidance_counts(self) -> bool:
        """Nothing is divided by counts."""
        return False

    def guidance(self, prediction: Prediction, teacher: Prediction, counts: Tensor | None = None) -> Tensor:
        """By COMPRESS.PRED_FORM: `boxes`, the box loss against the teacher's box (CompressTracker); `edges`, the
        divergence of the edges' distributions (MixFormerV2's own distillation); `full`, both."""
        form = self.cfg.COMPRESS.PRED_FORM
        loss = prediction.boxes.new_zeros(())
        if form != "edges":
            loss = loss + self._box_loss(prediction.boxes, cxcywh_to_xyxy(teacher.boxes.squeeze(1)))[0]
        if form != "boxes":
            target = teacher.further["edges"].softmax(dim=-1)
            loss = loss + self.cfg.TRAIN.CORNER_WEIGHT * edge_kl(prediction.further["edges"], target)
        return loss
