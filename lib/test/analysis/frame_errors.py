"""What tracking metrics measure in each frame.

All boxes are xywh in pixels, (N, 4), one row per frame. An annotation is missing where it has a NaN or a side that is
not positive.

    overlap     intersection over union of the two boxes
    centre      distance of the two centres in pixels
    normalised  the same with x divided by the annotated width and y by the annotated height

(Toolkits that count pixels inclusively write the right edge as x + w - 1 and add 1 to every length. In theory the two
cancel in all three measures.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .conventions import Convention


def overlap(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Intersection over union: (N, 4), (N, 4) xywh -> (N,); NaN where a box is NaN or the union is empty."""
    (x, y, w, h), (gt_x, gt_y, gt_w, gt_h) = pred.T, gt.T
    shared = _common(x, w, gt_x, gt_w)
    shared *= _common(y, h, gt_y, gt_h)
    union = w * h
    union += gt_w * gt_h
    union -= shared
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.divide(shared, union, out=shared)


def _common(start: np.ndarray, length: np.ndarray, gt_start: np.ndarray, gt_length: np.ndarray) -> np.ndarray:
    """Length of the common part of intervals, all (N,)."""
    common = np.minimum(start + length, gt_start + gt_length)
    common -= np.maximum(start, gt_start)
    return np.maximum(common, 0, out=common)


def _center(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Middle of intervals, counted in whole pixels as the published toolkits do: start + (length - 1) / 2."""
    center = length - 1
    center *= 0.5
    center += start
    return center


def _length(dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Length of vectors; both arrays are used up."""
    dx *= dx
    dy *= dy
    dx += dy
    return np.sqrt(dx, out=dx)


def center_errors(pred: np.ndarray, gt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the centres in pixels and in units of the annotated box.

    The centres are scaled before they are subtracted. With whole-pixel boxes the error often equals a threshold such
    as 0.2 in theory, and then the rounding decides: the order of the operations is part of the published numbers.

    Args:
        pred, gt: (N, 4) xywh.

    Returns:
        (N,) and (N,); the second is NaN or infinite where the annotation has no area.
    """
    (x, y, w, h), (gt_x, gt_y, gt_w, gt_h) = pred.T, gt.T
    x, y, gt_x, gt_y = _center(x, w), _center(y, h), _center(gt_x, gt_w), _center(gt_y, gt_h)
    pixels = _length(x - gt_x, y - gt_y)
    with np.errstate(invalid="ignore", divide="ignore"):
        for centers, sides in ((x, gt_w), (y, gt_h), (gt_x, gt_w), (gt_y, gt_h)):
            centers /= sides
        return pixels, _length(np.subtract(x, gt_x, out=x), np.subtract(y, gt_y, out=y))


def annotated(gt: np.ndarray) -> np.ndarray:
    """(N, 4) xywh -> (N,) bool: the frame has a finite box with area."""
    x, y, w, h = gt.T
    with np.errstate(invalid="ignore"):
        return np.isfinite(x + y + w + h) & (w > 0) & (h > 0)


@dataclass(frozen=True)
class FrameErrors:
    """Measures of the frames of some sequences, all (N,).

    Attributes:
        valid: the frame has a visible target and is judged.
        judged: the frame counts in the curves.
    """

    overlap: np.ndarray
    center: np.ndarray
    normalized: np.ndarray
    valid: np.ndarray
    judged: np.ndarray


def frame_errors(pred: np.ndarray, gt: np.ndarray, visible: np.ndarray | None, convention: Convention,
                 starts: Sequence[int] | np.ndarray = (0,), size: np.ndarray | None = None) -> FrameErrors:
    """Judge every frame of one or several sequences by a convention.

    Args:
        pred: (N, 4) xywh predictions, finite with sides >= 0 (any with `convention.repair`, the first one excepted);
            the first boxes of the sequences are overwritten.
        gt: (N, 4) xywh annotations; NaN or no area where there is no target.
        visible: (N,) bool, or None when the benchmark does not say.
        starts: (S,) rows in which a sequence begins, ascending from 0.
        size: (N, 2) widths and heights of the images for conventions that clip, NaN where unknown; None is all unknown.
    """
    starts = np.asarray(starts)
    pred = _hold(pred, gt, starts, convention)
    pred[starts] = gt[starts]
    has_box = annotated(gt)
    if convention.positive_corner:
        has_box &= (gt[:, 0] > 0) & (gt[:, 1] > 0)
    unseen = ~visible if visible is not None and convention.use_visible else None
    valid = has_box if unseen is None else has_box & ~unseen
    if convention.clip and size is not None:
        pred, gt = _clip(pred, size), _clip(gt, size)
    overlaps = overlap(pred, gt)
    center, normalized = center_errors(pred, gt)
    if convention.clip:  # nothing of the annotation, and perhaps of either box, is in the image
        overlaps[np.isnan(overlaps)] = 0.0
        normalized[np.isnan(normalized)] = np.inf
    absent = ~valid
    if absent.any():
        for values, value in ((overlaps, 0.0), (center, convention.absent_error),
                              (normalized, convention.absent_normalized)):
            np.copyto(values, value, where=absent)
    if convention.unseen_is_miss and unseen is not None:
        for values in (center, normalized):
            np.copyto(values, np.inf, where=unseen)
    judged = np.ones(len(gt), dtype=bool) if convention.count_absent else valid.copy()
    if convention.skip_first:
        judged[starts] = False
    return FrameErrors(overlaps, center, normalized, valid & judged, judged)


def _hold(pred: np.ndarray, gt: np.ndarray, starts: np.ndarray, convention: Convention) -> np.ndarray:
    """`pred` with the one before in place of each box without area (with `repair`: of each invalid one).

    The first boxes of sequences stay as they are.
    """
    if pred[:, 2:].min() > 0 and not convention.repair:
        return pred
    repeat = (pred[:, 2] == 0) | (pred[:, 3] == 0)
    if convention.repair:
        repeat |= invalid(pred)
    if not convention.hold_over_absent:
        repeat &= ~np.isnan(gt).any(axis=1)
    repeat[starts] = False
    if not repeat.any():
        return pred
    source = np.where(repeat, 0, np.arange(len(pred)))
    return pred[np.maximum.accumulate(source)]


def invalid(pred: np.ndarray) -> np.ndarray:
    """(N, 4) xywh -> (N,) bool: the box is not finite or has a negative side."""
    return ~np.isfinite(pred).all(axis=1) | (pred[:, 2:] < 0).any(axis=1)


def _clip(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Boxes in the image as the GOT-10k toolkit clips: the corner first, then what is left of the sides."""
    has_size = np.isfinite(size).all(axis=1)[:, None]
    corner = np.clip(boxes[:, :2], 0, size)
    sides = np.clip(boxes[:, 2:], 0, size - corner)
    return np.where(has_size, np.hstack([corner, sides]), boxes)
