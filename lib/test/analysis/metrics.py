"""Metrics of single-object tracking, vectorised over the frames of many sequences.

What is measured in each frame: `lib.test.analysis.frame_errors`.

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

from ...utils.errors import UserError
from .conventions import CONVENTIONS, Convention, convention_for, get_convention
from .frame_errors import annotated, frame_errors, invalid

__all__ = ["CONVENTIONS", "NORMALIZED_THRESHOLDS", "PRECISION_THRESHOLDS", "SCORE_NAMES", "SUCCESS_THRESHOLDS",
           "Convention", "Scores", "SequenceScores", "convention_for", "count_above", "evaluate_sequence",
           "evaluate_sequences", "get_convention", "mean_of_runs", "success_auc", "summarize"]

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
    if convention.clip and any(pair is not None for pair in sizes):
        size = np.repeat(np.array([pair or (np.nan, np.nan) for pair in sizes], dtype=float), lengths, axis=0)
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
