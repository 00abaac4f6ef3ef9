"""Boxes: formats and overlaps. The last dimension always holds the four numbers; the format stands in the name."""

import torch
from torch import Tensor


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) top-left corner and size -> two corners."""
    xy, wh = boxes.split(2, dim=-1)
    return torch.cat([xy, xy + wh], dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre and size -> two corners."""
    centre, wh = boxes.split(2, dim=-1)
    return torch.cat([centre - wh / 2, centre + wh / 2], dim=-1)


def cxcywh_to_xywh(boxes: Tensor) -> Tensor:
    """(..., 4) centre and size -> top-left corner and size."""
    centre, wh = boxes.split(2, dim=-1)
    return torch.cat([centre - wh / 2, wh], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) two corners -> centre and size."""
    low, high = boxes.split(2, dim=-1)
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def _areas(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy -> (...) areas, signed."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Overlap of matching boxes.

    Args:
        a, b: (..., 4) xyxy; broadcast against each other.

    Returns:
        (...) intersection over union, and (...) union area. A pair whose union is empty has overlap 0.
    """
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    union = _areas(a) + _areas(b) - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny), union


def generalized_box_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Generalised IoU of matching boxes (Rezatofighi et al., CVPR 2019).

    Args:
        a, b: (..., 4) xyxy; broadcast against each other.

    Returns:
        (...) GIoU in -1..1, and (...) IoU in 0..1.
    """
    iou, union = box_iou(a, b)
    low = torch.minimum(a[..., :2], b[..., :2])
    high = torch.maximum(a[..., 2:], b[..., 2:])
    hull = (high - low).clamp(min=0).prod(dim=-1)
    hull = hull.clamp(min=torch.finfo(hull.dtype).tiny)
    return iou - (hull - union) / hull, iou


def complete_box_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Complete IoU of matching boxes (Zheng et al., AAAI 2020), at least -1. As in their later code, the term of the
    aspect ratios counts where the boxes overlap by more than half, and its weight has no gradient.

    Args:
        a, b: (..., 4) xyxy; broadcast against each other.

    Returns:
        (...) CIoU in -1..1, and (...) IoU in 0..1.
    """
    iou, _ = box_iou(a, b)
    tiny = torch.finfo(iou.dtype).tiny
    span = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    between = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2              # of the centres
    distance = between.square().sum(dim=-1) / span.square().sum(dim=-1).clamp(min=tiny)
    aspect = 4 / torch.pi**2 * (_slope(b) - _slope(a)).square()
    with torch.no_grad():
        weight = (iou > 0.5) * aspect / (1 - iou + aspect).clamp(min=tiny)
    return (iou - distance - weight * aspect).clamp(-1, 1), iou


def _slope(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy -> (...) angle whose tangent is width over height."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(dim=-1)
    return torch.atan(width / height.where(height != 0, torch.finfo(height.dtype).tiny))


def clip_box(box_xywh, height: int, width: int, margin: float = 0.0) -> list[float]:
    """Push one box [x, y, w, h] into an image so that at least `margin` pixels of each side stay visible.

    The same rule as OSTrack's run-time tracker (lib/utils/box_ops.py there): the left edge lies in
    0..width - margin, the right edge in margin..width, each side is at least `margin` long.
    """
    x, y, w, h = (float(v) for v in box_xywh)
    left = min(max(0.0, x), width - margin)
    right = min(max(margin, x + w), width)
    top = min(max(0.0, y), height - margin)
    bottom = min(max(margin, y + h), height)
    return [left, top, max(margin, right - left), max(margin, bottom - top)]
