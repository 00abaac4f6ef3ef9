"""What a family's tracker learns: the loss against the ground truth, the one against a teacher, and what is handed from
one search frame to the next. This one is OSTrack's (Ye et al., ECCV 2022, section 3.4), for families that predict boxes
and, with a CENTER head, a score map; another family derives from it or has its own with the same methods."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..config import Config
from ..losses.heatmap import count_peaks
from ..losses.tracking import box_loss, location_loss
from ..models.base import Prediction
from ..utils.boxes import cxcywh_to_xywh, cxcywh_to_xyxy, xywh_to_xyxy


class Objective:
    """The loss of a search frame.

    Args:
        cfg: the run's configuration.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg

    def further(self, batch: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        """`Inputs.further` of a batch; nothing in general."""
        return {}

    def carried(self, prediction: Prediction) -> dict[str, Any]:
        """`Inputs.further` of a sample's next search frame that comes from this one; nothing in general."""
        return {}

    def counts(self, boxes_xywh: Tensor) -> Tensor:
        """(1,) float32 number that the loss of a batch divides by: how many of the boxes (B, 4), in 0..1 of the search
        crop, have a peak in the score map (in the student's, where there is one: it may have a grid of its own)."""
        model = self.cfg.student
        return count_peaks(boxes_xywh, model.DATA.SEARCH.SIZE // model.MODEL.BACKBONE.STRIDE).float().view(1)

    def loss(self, prediction: Prediction, target_xywh: Tensor, counts: Tensor | None = None
             ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss against the ground truth: GIoU and L1 of the box, focal of the score map.

        Args:
            prediction: of the batch.
            target_xywh: (B, 4) in 0..1 of the search crop.
            counts: what to divide by in place of `self.counts(target_xywh)`: a part's share in the whole batch's.

        Returns:
            scalar, and its terms (detached scalars).
        """
        train = self.cfg.TRAIN
        box = box_loss(prediction.boxes, xywh_to_xyxy(target_xywh).clamp(0, 1))
        location = location_loss(prediction, target_xywh, None if counts is None else counts[0])
        loss = train.GIOU_WEIGHT * box.giou + train.L1_WEIGHT * box.l1 + train.FOCAL_WEIGHT * location
        terms = {"Loss/total": loss, "Loss/giou": box.giou, "Loss/l1": box.l1, "Loss/location": location,
                 "IoU": box.iou}
        return loss, {name: value.detach() for name, value in terms.items()}

    @property
    def guidance_counts(self) -> bool:
        """Whether the guidance divides by counts of the teacher's boxes."""
        return self.cfg.COMPRESS.PRED_FORM == "full"

    def guidance(self, prediction: Prediction, teacher: Prediction, counts: Tensor | None = None) -> Tensor:
        """Prediction guidance: the tracking loss with the teacher's box as the target (paper section 3.4).

        COMPRESS.PRED_FORM `full` has all three terms, the heat map's peak at the teacher's box; `boxes` leaves the
        score map out, as the released code does. For `counts` see `loss`; here they are the teacher's boxes'.
        """
        train = self.cfg.TRAIN
        target = teacher.boxes.squeeze(1)                                   # (B, 4) cxcywh
        box = box_loss(prediction.boxes, cxcywh_to_xyxy(target))
        loss = train.GIOU_WEIGHT * box.giou + train.L1_WEIGHT * box.l1
        if self.guidance_counts:
            peaks = None if counts is None else counts[0]
            loss = loss + train.FOCAL_WEIGHT * location_loss(prediction, cxcywh_to_xywh(target), peaks)
        return loss

    def teacher_counts(self, teacher: Prediction) -> Tensor:
        """`counts` for the guidance."""
        return self.counts(cxcywh_to_xywh(teacher.boxes.squeeze(1)))


def search_frames(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A batch's search frames in their order, each as a batch of its own with `search` (B, 3, H, W) and `search_box`
    (B, 4): where a sample has several, they stand in the second dimension."""
    if batch["search"].dim() == 4:
        return [dict(batch)]
    views = ("search", "search_box")
    return [{**batch, **{view: batch[view][:, number] for view in views}} for number in range(batch["search"].shape[1])]


def mean_terms(frames: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The frames' terms, averaged."""
    return {name: torch.stack([terms[name] for terms in frames]).mean() for name in frames[0]}
