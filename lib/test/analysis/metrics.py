"""Metrics of single-object tracking, vectorised over the frames of a sequence.

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

What happens in frames without a target, and how AO is averaged, differs from benchmark to benchmark: `Convention`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.utils.errors import UserError

SUCCESS_THRESHOLDS = np.arange(21) / 20
PRECISION_THRESHOLDS = np.arange(51, dtype=float)
NORMALIZED_THRESHOLDS = np.arange(51) / 100
SCORE_NAMES = ("AUC", "OP50", "OP75", "Precision", "NormPrecision", "AO", "SR50", "SR75")

_MISS = float("inf")
_HIT = -1.0


@dataclass(frozen=True)
class Convention:
    """What a benchmark's rules say beyond the formulas.

    The prediction of the first frame is never judged: the tracker was given that box. It counts as a perfect frame,
    or, with `skip_first`, not at all.

    Attributes:
        summary: one line for reports.
        skip_first: leave the first frame out of everything.
        count_absent: frames without a target stay in the denominator of the curves (their overlap never counts).
        absent_error: centre error given to a frame without a target: infinite is a miss, negative a hit.
        absent_normalized: the same for the normalised error.
        unseen_is_miss: frames marked as not visible are misses in both precision curves whatever the two above say.
        hold_over_absent: a prediction without area takes the place of the last one with area. False: it stays as it
            is in a frame without an annotation, and later ones repeat it.
        pooled: AO, SR50 and SR75 are taken over all frames of the benchmark; otherwise they are means over sequences.
    """

    name: str
    summary: str
    skip_first: bool = False
    count_absent: bool = True
    absent_error: float = _MISS
    absent_normalized: float = _HIT
    unseen_is_miss: bool = False
    hold_over_absent: bool = True
    pooled: bool = False


CONVENTIONS = {
    convention.name: convention for convention in (
        Convention("ostrack", "OSTrack's analysis: frames without a target count as misses, but as hits in the "
                              "normalised precision"),
        Convention("lasot", "OSTrack's analysis of LaSOT: frames without a visible target count as misses",
                   unseen_is_miss=True),
        Convention("uav", "OSTrack's analysis of UAV123: frames without a target count as misses in the success curve, "
                          "as hits in both precision curves", absent_error=_HIT, hold_over_absent=False),
        Convention("got10k", "frames without a target are left out, AO and SR over all frames together, the first "
                             "frame counts as a hit", count_absent=False, absent_normalized=_MISS, pooled=True),
        Convention("got10k_toolkit", "frames without a target and first frames are left out, AO and SR over all frames "
                                     "together (the GOT-10k toolkit's rule, boxes not clipped to the image)",
                   skip_first=True, count_absent=False, absent_normalized=_MISS, pooled=True),
        Convention("plain", "frames without a target are left out, every score is a mean over sequences",
                   count_absent=False, absent_normalized=_MISS),
    )
}
"""Conventions by name. The first three are the rules of OSTrack's lib/test/analysis (GitHub botaoye/OSTrack)."""

_BY_DATASET = {"lasot": "lasot", "uav": "uav", "got10k": "got10k", "folder": "plain"}


def convention_for(dataset: str) -> Convention:
    """The convention of a data set, from the beginning of its name (lasot, uav123, got10k_val, folder:...)."""
    for prefix, name in _BY_DATASET.items():
        if dataset.lower().startswith(prefix):
            return CONVENTIONS[name]
    return CONVENTIONS["ostrack"]


def get_convention(name: str) -> Convention:
    """A convention by its own name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in CONVENTIONS:
        raise UserError(f"unknown convention {name!r}; choose one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def overlap(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Intersection over union: (N, 4), (N, 4) xywh -> (N,); NaN where a box is NaN or the union is empty."""
    low = np.maximum(pred[:, :2], gt[:, :2])
    high = np.minimum(pred[:, :2] + pred[:, 2:], gt[:, :2] + gt[:, 2:])
    width, height = np.maximum(high - low, 0).T
    shared = width * height
    with np.errstate(invalid="ignore", divide="ignore"):
        return shared / (pred[:, 2] * pred[:, 3] + gt[:, 2] * gt[:, 3] - shared)


def _centers(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) xywh -> (N, 2) centres, counted in whole pixels as the published toolkits do: x + (w - 1) / 2."""
    return boxes[:, :2] + (boxes[:, 2:] - 1) / 2


def center_error(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Distance of the centres in pixels: (N, 4), (N, 4) xywh -> (N,)."""
    return np.sqrt(((_centers(pred) - _centers(gt)) ** 2).sum(axis=1))


def normalized_center_error(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """Distance of the centres in units of the annotated box: (N, 4), (N, 4) xywh -> (N,); NaN or inf without area.

    The centres are scaled before they are subtracted. With whole-pixel boxes the error often equals a threshold such
    as 0.2 in theory, and then the rounding decides: the order of the operations is part of the published numbers.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(((_centers(pred) / gt[:, 2:] - _centers(gt) / gt[:, 2:]) ** 2).sum(axis=1))


def annotated(gt: np.ndarray) -> np.ndarray:
    """(N, 4) xywh -> (N,) bool: the frame has a finite box with area."""
    return np.isfinite(gt).all(axis=1) & (gt[:, 2:] > 0).all(axis=1)


@dataclass(frozen=True)
class FrameErrors:
    """Measures of the judged frames of one sequence, all (N,); `valid` marks the frames with a visible target."""

    overlap: np.ndarray
    center: np.ndarray
    normalized: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class SequenceScores:
    """Curves (shares in 0..1) and overlaps of one sequence.

    Attributes:
        success, precision, normalized: curves over SUCCESS_, PRECISION_ and NORMALIZED_THRESHOLDS.
        frames: number of valid frames.
        overlap_sum: sum of the overlaps of the valid frames.
        above_50, above_75: number of valid frames with an overlap above 0.5 and 0.75.
    """

    success: np.ndarray
    precision: np.ndarray
    normalized: np.ndarray
    frames: int
    overlap_sum: float
    above_50: int
    above_75: int

    @property
    def auc(self) -> float:
        """Mean of the success curve, 0..1."""
        return float(self.success.mean())

    @property
    def ao(self) -> float:
        """Mean overlap of the valid frames, 0..1."""
        return self.overlap_sum / self.frames


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


def frame_errors(pred: np.ndarray, gt: np.ndarray, visible: np.ndarray | None, convention: Convention) -> FrameErrors:
    """Judge every frame of a sequence by a convention.

    Args:
        pred: (N, 4) xywh predictions, finite, sides >= 0.
        gt: (N, 4) xywh annotations; NaN or no area where there is no target.
        visible: (N,) bool, or None when the benchmark does not say.
    """
    seen = np.ones(len(gt), dtype=bool) if visible is None else np.asarray(visible, dtype=bool)
    pred = _hold(pred, gt, convention.hold_over_absent)
    pred[0] = gt[0]
    has_box = annotated(gt)
    valid = has_box & seen
    unseen_error = _MISS if convention.unseen_is_miss else None

    def with_absent(values: np.ndarray, absent: float, unseen: float | None = None) -> np.ndarray:
        values = np.where(valid, values, absent)
        return values if unseen is None else np.where(seen, values, unseen)

    errors = FrameErrors(
        overlap=with_absent(overlap(pred, gt), -1.0),
        center=with_absent(center_error(pred, gt), convention.absent_error, unseen_error),
        normalized=with_absent(normalized_center_error(pred, gt), convention.absent_normalized, unseen_error),
        valid=valid,
    )
    judged = np.ones(len(gt), dtype=bool) if convention.count_absent else valid.copy()
    if convention.skip_first:
        judged[0] = False
    if judged.all():
        return errors
    return FrameErrors(errors.overlap[judged], errors.center[judged], errors.normalized[judged], valid[judged])


def _hold(pred: np.ndarray, gt: np.ndarray, over_absent: bool) -> np.ndarray:
    """A copy of `pred` in which boxes without area repeat the box before them (the first one stays)."""
    repeat = (pred[:, 2:] == 0).any(axis=1)
    if not over_absent:
        repeat &= ~np.isnan(gt).any(axis=1)
    repeat[0] = False
    source = np.where(repeat, 0, np.arange(len(pred)))
    return pred[np.maximum.accumulate(source)]


def count_above(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many values lie strictly above each of the ascending thresholds: (N,), (T,) -> (T,) int."""
    passed = np.searchsorted(thresholds, values, side="left")
    histogram = np.bincount(passed, minlength=len(thresholds) + 1)
    return histogram[::-1].cumsum()[::-1][1:]


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
    convention = get_convention(convention) if isinstance(convention, str) else convention
    pred = np.asarray(pred, dtype=np.float64)
    gt = np.asarray(gt, dtype=np.float64)
    _check(pred, gt, visible)
    errors = frame_errors(pred, gt, visible, convention)
    overlaps = errors.overlap[errors.valid]
    if not len(overlaps):
        raise UserError("no frame has a visible, annotated target: there is nothing to measure")
    total = len(errors.overlap)
    return SequenceScores(
        success=count_above(errors.overlap, SUCCESS_THRESHOLDS) / total,
        precision=1 - count_above(errors.center, PRECISION_THRESHOLDS) / total,
        normalized=1 - count_above(errors.normalized, NORMALIZED_THRESHOLDS) / total,
        frames=len(overlaps),
        overlap_sum=float(overlaps.sum()),
        above_50=int((overlaps > 0.5).sum()),
        above_75=int((overlaps > 0.75).sum()),
    )


def _check(pred: np.ndarray, gt: np.ndarray, visible: np.ndarray | None) -> None:
    """Refuse input whose scores would mean nothing."""
    for name, boxes in (("predictions", pred), ("annotations", gt)):
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise UserError(f"{name} have the shape {boxes.shape}; (frames, 4) was expected")
    if len(pred) != len(gt):
        raise UserError(f"{len(pred)} predictions for {len(gt)} annotated frames; one box per frame was expected")
    if visible is not None and len(visible) != len(gt):
        raise UserError(f"{len(visible)} visibility flags for {len(gt)} annotated frames; one per frame was expected")
    bad = ~np.isfinite(pred).all(axis=1) | (pred[:, 2:] < 0).any(axis=1)
    if bad.any():
        frame = int(bad.argmax())
        raise UserError(f"the prediction of frame {frame + 1} is {pred[frame].tolist()}; four finite numbers with "
                        "width and height >= 0 were expected")


def summarize(sequences: Sequence[SequenceScores], convention: Convention | str = "ostrack") -> Scores:
    """Scores of a benchmark from those of its sequences (at least one), in per cent."""
    convention = get_convention(convention) if isinstance(convention, str) else convention
    if not sequences:
        raise UserError("there is no sequence to score")
    success, precision, normalized = (
        100 * np.mean([getattr(sequence, curve) for sequence in sequences], axis=0)
        for curve in ("success", "precision", "normalized"))
    sums = np.array([[s.overlap_sum, s.above_50, s.above_75] for s in sequences], dtype=float)
    frames = np.array([[s.frames] for s in sequences], dtype=float)
    ao, sr50, sr75 = 100 * (sums.sum(axis=0) / frames.sum() if convention.pooled else (sums / frames).mean(axis=0))
    return Scores(
        AUC=float(success.mean()), OP50=float(success[10]), OP75=float(success[15]),
        Precision=float(precision[20]), NormPrecision=float(normalized[20]),
        AO=float(ao), SR50=float(sr50), SR75=float(sr75),
        success=success, precision=precision, normalized=normalized,
    )


def success_auc(pred: np.ndarray, gt: np.ndarray, visible: np.ndarray | None = None,
                convention: Convention | str = "plain") -> float:
    """Area under the success curve of one sequence, 0..1; by default over the frames that have a target.

    Arguments and errors as for `evaluate_sequence`.
    """
    return evaluate_sequence(pred, gt, visible, convention).auc
