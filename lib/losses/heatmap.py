"""The target of the score map: a Gaussian peak at the box's centre (CornerNet's radius, CenterNet's heat map)."""

import torch
from torch import Tensor


def gaussian_radius(width: Tensor, height: Tensor, overlap: float = 0.7) -> Tensor:
    """How far (in cells) a box may move before its IoU with itself falls to `overlap`, in CornerNet's first form.

    CornerNet later corrected the three roots; OSTrack keeps the first form, and so do its published weights.

    Args:
        width, height: (...) box sides in cells.

    Returns:
        (...) radius in cells, at least 0.
    """
    total, area = height + width, width * height
    roots = []
    for a, b, c in ((1.0, total, area * (1 - overlap) / (1 + overlap)),
                    (4.0, 2 * total, (1 - overlap) * area),
                    (4 * overlap, -2 * overlap * total, (overlap - 1) * area)):
        roots.append((b + (b * b - 4 * a * c).clamp(min=0).sqrt()) / 2)
    return torch.stack(roots).amin(dim=0).clamp(min=0)


def gaussian_heatmap(boxes_xywh: Tensor, size: int) -> Tensor:
    """One peak per box.

    Args:
        boxes_xywh: (B, 4) in 0..1 of the search crop.
        size: side S of the score map.

    Returns:
        (B, 1, S, S) in 0..1, exactly 1 at the cell of the (rounded) centre if that lies in the map.
    """
    wh = boxes_xywh[:, 2:] * size
    centre = _centre_cell(boxes_xywh, size)                                           # (B, 2)
    radius = gaussian_radius(wh[:, 0], wh[:, 1]).trunc().view(-1, 1, 1)               # (B, 1, 1)
    steps = torch.arange(size, device=wh.device, dtype=wh.dtype)
    dx = steps.view(1, 1, -1) - centre[:, 0].view(-1, 1, 1)                           # (B, 1, S)
    dy = steps.view(1, -1, 1) - centre[:, 1].view(-1, 1, 1)                           # (B, S, 1)
    sigma = (2 * radius + 1) / 6
    peak = torch.exp(-(dx * dx + dy * dy) / (2 * sigma * sigma))                      # (B, S, S)
    inside = (dx.abs() <= radius) & (dy.abs() <= radius)
    return (peak * inside).unsqueeze(1)


def count_peaks(boxes_xywh: Tensor, size: int) -> Tensor:
    """How many boxes have their peak in the map of `gaussian_heatmap` (0-dim)."""
    centre = _centre_cell(boxes_xywh, size)
    return ((centre >= 0) & (centre < size)).all(dim=1).sum()


def _centre_cell(boxes_xywh: Tensor, size: int) -> Tensor:
    """(B, 2) x and y of the cell that a box's centre is rounded to; may lie outside the map."""
    boxes = boxes_xywh * size
    return (boxes[:, :2] + boxes[:, 2:] / 2).round()
