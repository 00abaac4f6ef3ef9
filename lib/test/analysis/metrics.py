"""Metrics of single-object tracking, vectorised over the frames of many sequences.

All boxes are xywh in pixels, (N, 4), one row per frame. An annotation is missing where it has a NaN or a side that is
not positive.

Per frame:
    overlap     intersection over union of the two boxes
    centre      distance of the two centres in pixels
    normalised  the same with x divided by the annotated width and y by the annotated height

(Toolkits that count pixels inclusively write the right edge as x + w - 1 and add 1 to every length. In theory the two
cancel in all three measures.)

Per sequence, as shares of its frames: the success curve (overlap above 0, 0.05, ..., 1), the precision curve (centre
error at most 0, 1, ..., 50 pixels) and the normalised precision curve (at most 0, 0.01, ..., 0.5). A benchmark's curve
is the mean of its sequences' curves. AUC is the mean of the success curve, OP50 and OP75 its values at 0.5 and 0.75,
Precision the value at 20 pixels, NormPrecision the value at 0.2. AO is the mean overlap of the annotated frames, SR50
and SR75 the share of them whose overlap is above 0.5 and 0.75.

What happens in frames without a target, and how scores are averaged, differs from one analysis code to another:
`lib.test.analysis.conventions`.

Sequences are put one after the other and judged together, some tens of thousands of frames at a time: few enough for
the processor's cache, enough to make NumPy's calls cheap.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lib.test.analysis.conventions import CONVENTIONS, Convention, convention_for, get_convention
from lib.utils.errors import UserError

__all__ = ["CONVENTIONS", "NORMALIZED_THRESHOLDS", "PRECISION_THRESHOLDS", "SCORE_NAMES", "SUCCESS_THRESHOLDS",
           "Convention", "FrameErrors", "Scores", "SequenceScores", "annotated", "center_errors", "convention_for",
           "count_above", "evaluate_sequence", "evaluate_sequences", "frame_errors", "get_convention", "invalid",
           "mean_of_runs", "overlap", "success_auc", "summarize"]

SUCCESS_THRESHOLDS = np.arange(21) / 20
PRECISION_THRESHOLDS = np.arange(51, dtype=float)
NORMALIZED_THRESHOLDS = np.arange(51) / 100
SCORE_NAMES = ("AUC", "OP50", "OP75", "Precision", "NormPrecision", "AO", "SR50", "SR75")

_AT_50, _AT_75 = 10, 15
"""Where 0.5 and 0.75 stand among the success thresholds."""
_AT_20, _AT_02 = 20, 20
"""Where 20 pixels and 0.2 stand among the other two."""
_TOGETHER = 30_000
"""Frames that are judged at once (as whole sequences)."""


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


@dataclass(frozen=True)
class SequenceScores:
    """Curves (shares in 0..1) and overlaps of one sequence.

    Attributes:
        success, precision, normalized: curves over SUCCESS_, PRECISION_ and NORMALIZED_THRESHOLDS.
        judged: number of frames that the curves are shares of.
        frames: number of valid frames.
        overlap_sum: sum of the overlaps of the valid frames.
        above_50, above_75: number of valid frames with an overlap above 0.5 and 0.75.
    """

    success: np.ndarray
    precision: np.ndarray
    normalized: np.ndarray
    judged: float
    frames: float
    overlap_sum: float
    above_50: float
    above_75: float

    @property
    def auc(self) -> float:
        """Mean of the success curve, 0..1."""
        return float(self.success.mean())

    @property
    def ao(self) -> float:
        """Mean overlap of the valid frames, 0..1; NaN without any."""
        return self.overlap_sum / self.frames if self.frames else float("nan")


@dataclass(frozen=True)
class Scores:
    """Scores of one tracker on one benchmark in per cent, and its mean curves in per cent."""

    AUC: float
    OP50: float
    OP75: float
    Precision: float
    NormPrecision: float
    AO: float
    SR50: float
    SR75: float
    success: np.ndarray
    precision: np.ndarray
    normalized: np.ndarray

    def as_dict(self) -> dict[str, float]:
        """The eight numbers by name, in the order of SCORE_NAMES."""
        return {name: getattr(self, name) for name in SCORE_NAMES}


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
    known = np.isfinite(size).all(axis=1)[:, None]
    corner = np.clip(boxes[:, :2], 0, size)
    sides = np.clip(boxes[:, 2:], 0, size - corner)
    return np.where(known, np.hstack([corner, sides]), boxes)


def _passed(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many of the evenly spaced thresholds 0, d, 2d, ... lie below each value >= 0: (N,), (T,) -> (N,) int.

    The same as `np.searchsorted(thresholds, values)`, for which only values next to a threshold are looked up.
    """
    steps = round(1 / thresholds[1])
    scaled = values * steps
    near = ()
    if steps != 1:  # otherwise nothing was rounded
        with np.errstate(invalid="ignore"):
            distance = np.rint(scaled)
            distance -= scaled
        near = np.flatnonzero(np.abs(distance, out=distance) < 1e-9)
    np.ceil(scaled, out=scaled)
    passed = np.minimum(scaled, len(thresholds), out=scaled).astype(np.intp)
    if len(near):
        passed[near] = np.searchsorted(thresholds, values[near])
    return passed


def count_above(values: np.ndarray, thresholds: np.ndarray, row: np.ndarray | None = None, rows: int = 1) -> np.ndarray:
    """How many values lie strictly above each of the evenly spaced thresholds 0, d, 2d, ...

    Args:
        values: (N,), >= 0; may be infinite.
        thresholds: (T,).
        row: (N,) integers from 0 to `rows` - 1: what each value is counted for; None means all for row 0.

    Returns:
        (rows, T) int.
    """
    bins = len(thresholds) + 1
    passed = _passed(values, thresholds)
    if row is not None:
        passed += row * bins
    histogram = np.bincount(passed, minlength=rows * bins).reshape(rows, bins)
    return histogram[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]


def evaluate_sequence(pred: np.ndarray, gt: np.ndarray, visible: np.ndarray | None = None,
                      convention: Convention | str = "ostrack") -> SequenceScores:
    """Score one sequence.

    Args:
        pred: (N, 4) xywh predictions in pixels.
        gt: (N, 4) xywh annotations in pixels; NaN or no area where there is no target.
        visible: (N,) bool, False where the target is hidden or out of view; None when all frames count as visible.
        convention: a `Convention` or the name of one.

    Raises:
        UserError: lengths differ, a prediction is NaN, infinite or has a negative side, or no frame can be judged.
    """
    return evaluate_sequences([pred], [gt], [visible], convention)[0]


def evaluate_sequences(preds: Sequence[np.ndarray], gts: Sequence[np.ndarray],
                       visible: Sequence[np.ndarray | None] | None = None, convention: Convention | str = "ostrack",
                       sizes: Sequence[tuple[int, int] | None] | None = None,
                       names: Sequence[str] | None = None) -> list[SequenceScores]:
    """Score many sequences. Under a convention that leaves out more than hidden targets, `frames` may be 0.

    Args:
        preds, gts, visible: as for `evaluate_sequence`, one entry per sequence.
        convention: a `Convention` or the name of one.
        sizes: width and height of each sequence's images, for conventions that clip; None where unknown.
        names: what messages call the sequences.

    Raises:
        UserError: as from `evaluate_sequence`, with the sequence's name before it.
    """
    convention = get_convention(convention) if isinstance(convention, str) else convention
    preds = [np.asarray(pred, dtype=np.float64) for pred in preds]
    gts = [np.asarray(gt, dtype=np.float64) for gt in gts]
    visible = [None] * len(gts) if visible is None else visible
    sizes = [None] * len(gts) if sizes is None else sizes
    for i, (pred, gt, seen) in enumerate(zip(preds, gts, visible, strict=True)):
        _check_shapes(pred, gt, seen, f"{names[i]}: " if names else "")
    scores = [score for part in _parts([len(gt) for gt in gts])
              for score in _evaluate_together(preds[part], gts[part], visible[part], convention, sizes[part],
                                              names[part] if names else None)]
    for i, score in enumerate(scores):
        if not score.frames and not _has_target(gts[i], visible[i]):
            raise UserError(f"{names[i] + ': ' if names else ''}no frame has a visible, annotated target: there is "
                            "nothing to measure")
    return scores


def _has_target(gt: np.ndarray, visible: np.ndarray | None) -> bool:
    """Whether a target can be seen in any frame, whatever the convention makes of it."""
    return bool((annotated(gt) if visible is None else annotated(gt) & np.asarray(visible, dtype=bool)).any())


def _parts(lengths: Sequence[int]) -> Iterator[slice]:
    """Runs of sequences with about _TOGETHER frames each."""
    begin, frames = 0, 0
    for i, length in enumerate(lengths):
        frames += length
        if frames >= _TOGETHER or i == len(lengths) - 1:
            yield slice(begin, i + 1)
            begin, frames = i + 1, 0


def _evaluate_together(preds: Sequence[np.ndarray], gts: Sequence[np.ndarray], visible: Sequence[np.ndarray | None],
                       convention: Convention, sizes: Sequence[tuple[int, int] | None],
                       names: Sequence[str] | None) -> list[SequenceScores]:
    """Score sequences in one go."""
    lengths = np.array([len(gt) for gt in gts])
    starts = lengths.cumsum() - lengths
    pred, gt = _columns(preds), _columns(gts)
    if not (np.isfinite(pred.sum()) and pred[:, 2:].min() >= 0):
        _check_values(preds, names, convention)
    seen, size = None, None
    if any(flags is not None for flags in visible):
        seen = np.concatenate([np.ones(n, dtype=bool) if flags is None else np.asarray(flags, dtype=bool)
                               for n, flags in zip(lengths, visible, strict=True)])
    if convention.clip and any(known is not None for known in sizes):
        size = np.repeat(np.array([known or (np.nan, np.nan) for known in sizes], dtype=float), lengths, axis=0)
    errors = frame_errors(pred, gt, seen, convention, starts, size)

    row = np.repeat(np.arange(len(gts)), lengths)
    judged = np.add.reduceat(errors.judged, starts, dtype=np.intp)
    valid = np.add.reduceat(errors.valid, starts, dtype=np.intp)
    counted = np.where(errors.valid, errors.overlap, 0.0) if convention.skip_first else errors.overlap
    sums = np.add.reduceat(counted, starts)  # 0 where there is no target
    kept = slice(None)
    if judged.sum() < len(row):
        kept, row = errors.judged, row[errors.judged]
    above, beyond, beyond_normalized = (
        count_above(values[kept], thresholds, row, len(gts))
        for values, thresholds in ((errors.overlap, SUCCESS_THRESHOLDS), (errors.center, PRECISION_THRESHOLDS),
                                   (errors.normalized, NORMALIZED_THRESHOLDS)))
    total = np.maximum(judged, 1)[:, None]
    columns = (above / total, 1 - beyond / total, 1 - beyond_normalized / total, judged, valid, sums,
               above[:, _AT_50], above[:, _AT_75])
    return [SequenceScores(*sequence[:3], *map(float, sequence[3:])) for sequence in zip(*columns, strict=True)]


def _columns(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """(N_i, 4) arrays one after the other, stored column by column: the measures work on columns."""
    joined = np.empty((sum(map(len, arrays)), 4), order="F")
    return np.concatenate(arrays, out=joined)


def _check_shapes(pred: np.ndarray, gt: np.ndarray, visible: np.ndarray | None, where: str) -> None:
    """Refuse input that does not fit together."""
    for name, boxes in (("predictions", pred), ("annotations", gt)):
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise UserError(f"{where}{name} have the shape {boxes.shape}; (frames, 4) was expected")
    if len(pred) != len(gt):
        raise UserError(f"{where}{len(pred)} predictions for {len(gt)} annotated frames; one box per frame was "
                        "expected")
    if not len(gt):
        raise UserError(f"{where}there is no frame to score")
    if visible is not None and len(visible) != len(gt):
        raise UserError(f"{where}{len(visible)} visibility flags for {len(gt)} annotated frames; one per frame was "
                        "expected")


def _check_values(preds: Sequence[np.ndarray], names: Sequence[str] | None, convention: Convention) -> None:
    """Refuse predictions whose scores would mean nothing under a convention."""
    for i, pred in enumerate(preds):
        bad = np.flatnonzero(invalid(pred))
        if len(bad) and (not convention.repair or bad[0] == 0):
            raise UserError(f"{names[i] + ': ' if names else ''}the prediction of frame {bad[0] + 1} is "
                            f"{pred[bad[0]].tolist()}; four finite numbers with width and height >= 0 were expected")


def summarize(sequences: Sequence[SequenceScores], convention: Convention | str = "ostrack") -> Scores:
    """Scores of a benchmark from those of its sequences (at least one), in per cent.

    A sequence of which a convention judges no frame has no part in the means; what has no frame at all is NaN.
    """
    convention = get_convention(convention) if isinstance(convention, str) else convention
    if not sequences:
        raise UserError("there is no sequence to score")
    judged = np.array([s.judged for s in sequences], dtype=float)
    frames = np.array([s.frames for s in sequences], dtype=float)
    success, precision, normalized = (
        100 * _mean(np.array([getattr(sequence, curve) for sequence in sequences]), judged, convention.pooled)
        for curve in ("success", "precision", "normalized"))
    sums = np.array([[s.overlap_sum, s.above_50, s.above_75] for s in sequences], dtype=float)
    ao, sr50, sr75 = 100 * _mean(sums / np.maximum(frames, 1)[:, None], frames, convention.pooled)
    return Scores(
        AUC=float(success.mean()), OP50=float(success[_AT_50]), OP75=float(success[_AT_75]),
        Precision=float(precision[_AT_20]), NormPrecision=float(normalized[_AT_02]),
        AO=float(ao), SR50=float(sr50), SR75=float(sr75),
        success=success, precision=precision, normalized=normalized,
    )


def _mean(shares: np.ndarray, frames: np.ndarray, pooled: bool) -> np.ndarray:
    """(S, K) shares of (S,) frames each -> (K,): over all frames, or the mean of the sequences that have any."""
    weights = frames if pooled else frames > 0
    return weights @ shares / weights.sum() if weights.any() else np.full(shares.shape[1], np.nan)


def mean_of_runs(runs: Sequence[SequenceScores]) -> SequenceScores:
    """Mean scores of several runs of a tracker on the same sequence."""
    return SequenceScores(*(np.mean([getattr(run, name) for run in runs], axis=0)
                            for name in SequenceScores.__dataclass_fields__))


def success_auc(pred: np.ndarray, gt: np.ndarray, visible: np.ndarray | None = None,
                convention: Convention | str = "plain") -> float:
    """Area under the success curve of one sequence, 0..1; by default over the frames that have a target.

    Arguments and errors as for `evaluate_sequence`.
    """
    return evaluate_sequence(pred, gt, visible, convention).auc
