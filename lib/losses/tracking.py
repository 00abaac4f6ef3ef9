"""OSTrack's tracking loss: focal on the score map, GIoU and L1 on the box (OSTrack, section 3.4)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.base import Prediction
from ..utils.boxes import cxcywh_to_xyxy, generalized_box_iou
from .heatmap import gaussian_heatmap


class BoxLoss(NamedTuple):
    """Terms between predicted boxes and a target, each a mean over the batch; `iou` carries no gradient."""

    giou: Tensor
    l1: Tensor
    iou: Tensor


def focal_loss(prediction: Tensor, target: Tensor, peaks: Tensor | None = None, alpha: float = 2.0,
               beta: float = 4.0) -> Tensor:
    """Penalty-reduced focal loss (CornerNet, section 3.2), divided by the number of peaks.

    Args:
        prediction: (B, 1, S, S) in 0..1, never exactly 0 or 1.
        target: (B, 1, S, S) heat map; cells equal to 1 are the peaks.
        peaks: scalar to divide by: a part's share of the peaks in the whole batch; None for those of `target`.

    Returns:
        scalar.
    """
    at_peak = target.eq(1)
    hit = torch.log(prediction) * (1 - prediction) ** alpha * at_peak
    miss = torch.log(1 - prediction) * prediction**alpha * (1 - target) ** beta * ~at_peak
    return -(hit.sum() + miss.sum()) / (at_peak.sum().clamp(min=1) if peaks is None else peaks)


def box_loss(boxes_cxcywh: Tensor, target_xyxy: Tensor) -> BoxLoss:
    """GIoU and L1 terms.

    Args:
        boxes_cxcywh: (B, 1, 4) predicted boxes, 0..1.
        target_xyxy: (B, 4), 0..1.
    """
    predicted = cxcywh_to_xyxy(boxes_cxcywh).flatten(0, 1)
    giou, iou = generalized_box_iou(predicted, target_xyxy)
    return BoxLoss((1 - giou).mean(), F.l1_loss(predicted, target_xyxy), iou.detach().mean())


def location_loss(prediction: Prediction, boxes_xywh: Tensor, peaks: Tensor | None = None) -> Tensor:
    """Focal loss of the score map against a peak at each box; 0 for a head without a score map.

    Args:
        boxes_xywh: (B, 4) in 0..1 of the search crop.
        peaks: see `focal_loss`.
    """
    if prediction.score_map is None:
        return prediction.boxes.new_zeros(())
    return focal_loss(prediction.score_map, gaussian_heatmap(boxes_xywh, prediction.score_map.shape[-1]), peaks)
