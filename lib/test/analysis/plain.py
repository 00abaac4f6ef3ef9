"""The metrics once more, as plainly as they can be written: one sequence after the other, in PyTorch.

What the vectorised code of `metrics` is measured against, in time (`--benchmark`) and in the tests.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...utils.device import torch_threads
from .conventions import Convention
from .metrics import (
    NORMALIZED_THRESHOLDS,
    PRECISION_THRESHOLDS,
    SUCCESS_THRESHOLDS,
    SequenceScores,
    evaluate_sequences,
)


def plain_scores(pred: np.ndarray, gt: np.ndarray, visible: np.ndarray | None, convention: Convention,
                 size: tuple[int, int] | None = None) -> SequenceScores:
    """Score one sequence; the arguments are those of `metrics.evaluate_sequence`, which see.

    Args:
        size: width and height of the images, for conventions that clip.
    """
    boxes, truth = torch.tensor(pred, dtype=torch.float64), torch.tensor(gt, dtype=torch.float64)
    seen = torch.ones(len(truth), dtype=torch.bool)
    if visible is not None and convention.use_visible:
        seen = torch.tensor(np.asarray(visible, dtype=bool))
    broken = (boxes[:, 2:] == 0).any(1)
    if convention.repair:
        broken |= ~torch.isfinite(boxes).all(1) | (boxes[:, 2:] < 0).any(1)
    if not convention.hold_over_absent:
        broken &= ~torch.isnan(truth).any(1)
    if broken.any():
        for i in range(1, len(boxes)):
            if broken[i]:
                boxes[i] = boxes[i - 1]
    boxes[0] = truth[0]

    valid = torch.isfinite(truth).all(1) & (truth[:, 2:] > 0).all(1) & seen
    if convention.positive_corner:
        valid &= (truth[:, :2] > 0).all(1)
    if convention.clip and size is not None:
        boxes, truth = _clip(boxes, size), _clip(truth, size)
    low = torch.maximum(boxes[:, :2], truth[:, :2])
    high = torch.minimum(boxes[:, :2] + boxes[:, 2:], truth[:, :2] + truth[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    overlap = shared / (boxes[:, 2:].prod(1) + truth[:, 2:].prod(1) - shared)
    centers, true_centers = boxes[:, :2] + (boxes[:, 2:] - 1) / 2, truth[:, :2] + (truth[:, 2:] - 1) / 2
    center = ((centers - true_centers) ** 2).sum(1).sqrt()
    normalized = ((centers / truth[:, 2:] - true_centers / truth[:, 2:]) ** 2).sum(1).sqrt()

    if convention.clip:
        overlap, normalized = torch.nan_to_num(overlap), torch.nan_to_num(normalized, nan=float("inf"))
    overlap[~valid] = -1.0
    center[~valid] = convention.absent_error
    normalized[~valid] = convention.absent_normalized
    if convention.unseen_is_miss:
        center[~seen] = normalized[~seen] = float("inf")
    judged = torch.ones_like(valid) if convention.count_absent else valid.clone()
    if convention.skip_first:
        judged[0] = False
    overlaps = overlap[valid & judged]
    overlap, center, normalized = overlap[judged], center[judged], normalized[judged]
    return SequenceScores(
        success=_share(overlap.view(-1, 1) > torch.tensor(SUCCESS_THRESHOLDS)),
        precision=_share(center.view(-1, 1) <= torch.tensor(PRECISION_THRESHOLDS)),
        normalized=_share(normalized.view(-1, 1) <= torch.tensor(NORMALIZED_THRESHOLDS)),
        judged=len(overlap), frames=len(overlaps), overlap_sum=overlaps.sum().item(),
        above_50=(overlaps > 0.5).sum().item(), above_75=(overlaps > 0.75).sum().item())


def _clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 4) xywh clipped to an image of a width and height: the corner, then what is left of the sides."""
    limit = torch.tensor(size, dtype=boxes.dtype)
    corner = torch.minimum(boxes[:, :2].clamp(min=0), limit)
    return torch.cat([corner, torch.minimum(boxes[:, 2:].clamp(min=0), limit - corner)], dim=1)


def _share(passed: Tensor) -> np.ndarray:
    """(N, T) bool -> (T,) share of frames."""
    return (passed.sum(0).double() / max(len(passed), 1)).numpy()


@dataclass(frozen=True)
class Timing:
    """Best times of a few repetitions in seconds, and how far the two results are apart (largest difference)."""

    frames: int
    sequences: int
    vectorised: float
    plain: float
    difference: float

    def __str__(self) -> str:
        return (f"{self.sequences} sequences, {self.frames} frames: vectorised {1000 * self.vectorised:.0f} ms, plain "
                f"PyTorch loop {1000 * self.plain:.0f} ms, ratio {self.plain / self.vectorised:.1f} (best of several "
                f"turns), largest difference of two curves {self.difference:.1g}")


def compare(preds: Sequence[np.ndarray], gts: Sequence[np.ndarray], visible: Sequence[np.ndarray | None],
            convention: Convention, repeats: int = 7) -> Timing:
    """Time both ways of scoring in turn, on the same arrays in memory.

    The loop has one PyTorch thread: its tensors are too small to gain from more, and lose where cores are busy.
    """
    vectorised, plain = [], []
    with torch_threads(1):
        for _ in range(repeats):
            start = time.perf_counter()
            fast = evaluate_sequences(preds, gts, visible, convention)
            middle = time.perf_counter()
            slow = [plain_scores(*sequence, convention) for sequence in zip(preds, gts, visible, strict=True)]
            plain.append(time.perf_counter() - middle)
            vectorised.append(middle - start)
    difference = max(float(np.abs(getattr(a, curve) - getattr(b, curve)).max())
                     for a, b in zip(fast, slow, strict=True) for curve in ("success", "precision", "normalized"))
    return Timing(sum(map(len, gts)), len(gts), min(vectorised), min(plain), difference)
