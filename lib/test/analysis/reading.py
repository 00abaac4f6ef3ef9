"""From the rows of a result to boxes of the annotated frames: their form, their number, and whether they can be scored.

Nothing is guessed: what can mean one thing only is adapted, with a note; everything else is refused.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...utils.box_forms import NORMALISED, PIXEL_FORMS, SAME, suspect_form, to_xywh, why_suspected
from ...utils.errors import UserError
from .conventions import Convention
from .frame_errors import annotated, invalid, overlap
from .sources import Result, ResultSource

_SAME_BOX = 1.0
"""Pixels by which a written first box may differ from the annotation (results are cut to integers)."""
_GIVEN = 0.5
"""Overlap with the annotation below which a first row is not the given box, nor a prediction in that frame."""
_DOUBTFUL = 0.25
"""Mean overlap below which another form of the boxes is tried: what is wrongly read as x,y,w,h has less."""
_FITS, _TIMES = 0.3, 2.0
"""Mean overlap in another form that speaks for it, and how many times that of x,y,w,h it must be."""
_FEWEST, _SAMPLE = 5, 300
"""Frames from which overlaps can tell a form, and frames of a sequence that are looked at."""

Size = Callable[[], tuple[int, int] | None]
"""Gives width and height of a sequence's pictures, or None where they are not at hand."""


class WrongForm(UserError):
    """The boxes of a tracker are in another form than x,y,w,h in pixels, or than the one that was stated."""


class Aligned(NamedTuple):
    """Predictions and annotations of the same frames: (M, 4), (M, 4) and (M,) bool or None."""

    pred: np.ndarray
    gt: np.ndarray
    visible: np.ndarray | None


def read_aligned(result: Result, sequence, convention: Convention, source: ResultSource, size: Size
                 ) -> tuple[Aligned, list[str]]:
    """The predictions of a result beside the annotations, and a note for each thing that was adapted.

    Raises:
        UserError: the result cannot be read, or does not fit the sequence (`align`), or holds a box that the convention
            cannot score. `WrongForm` where the boxes are plainly in another form than x,y,w,h.
    """
    rows = result.rows()
    if not len(rows.values) or not len(sequence.ground_truth):
        raise UserError(f"{result.where}: there is no box, or no frame of {sequence.name} to compare it with")
    if source.form is None and (other_form := suspected(rows.values, sequence, size, rows.form or "xywh")):
        raise _wrong_form(result, source, other_form, why_suspected(other_form, rows.values))
    values, form = rows.values, source.form or rows.form or "xywh"
    if form != "xywh":
        pixels = size() if form.startswith(NORMALISED) else None
        if form.startswith(NORMALISED) and pixels is None:
            raise UserError(f"{result.where}: {form} boxes need the size of the pictures, which are not at hand")
        values = to_xywh(values, form, pixels)
        if np.abs(rows.values[0] - sequence.ground_truth[0]).max() <= SAME:  # the given box was written as it came
            values[0] = rows.values[0]
    pred, gt, visible, note = align(values, sequence, result.where)
    if source.form is None and form == "xywh" and (other_form := fitting_form(pred, gt)):
        raise _wrong_form(result, source, other_form, f"read as {other_form} they overlap the annotations far better")
    bad = np.flatnonzero(invalid(pred))
    if len(bad) and (not convention.repair or bad[0] == 0):
        frame = len(sequence.ground_truth) - len(gt) + bad[0] + 1
        raise UserError(f"{result.where}: the box of frame {frame} is {[round(v, 4) for v in pred[bad[0]].tolist()]}; "
                        "four finite numbers with width and height >= 0 were expected (--convention lasot takes the "
                        "box before an invalid one, as the LaSOT toolkit does)")
    notes = [*rows.notes, *([note] if note else [])]
    if len(bad):
        notes.append(f"{len(bad)} invalid boxes, in whose place the one before was scored")
    if overlap(pred[:1], gt[:1])[0] < _GIVEN and np.abs(pred[0] - gt[0]).max() > _SAME_BOX:
        if not getattr(source, "external", True):   # tracking/test.py writes the given box there
            raise UserError(f"{result.where}: its first row is not the first box of {sequence.name}: it is of another "
                            "data set with these names, or the annotation was changed")
        notes.append("its first row is not the box that trackers are given there; is it of this sequence?")
    return Aligned(pred, gt, visible), notes


def suspected(values: np.ndarray, sequence, size: Size, stated: str = "xywh") -> str | None:
    """The form that (N, 4) numbers are plainly in instead of a stated one in pixels; None for that one, and in doubt.

    The first row is the box that the tracker was given, so it tells, where it was written: see `suspect_form`. Against
    another form than x,y,w,h, which a file states in a header, only parts of the picture speak.
    """
    gt, earlier = np.asarray(sequence.ground_truth, dtype=np.float64), getattr(sequence, "earlier", None)
    after_first = values[len(values) > 1:]
    if suspect_form(after_first[:_SAMPLE]) and (normalised := suspect_form(after_first)):
        # parts of the picture; its size tells which of them
        return NORMALISED + stated if stated != "xywh" else suspect_form(values, size(), gt[0]) or normalised
    given_boxes = [gt[0], *(gt[len(gt) - len(values):][:1] if len(values) < len(gt) else ()),
                   *(() if earlier is None else earlier[:1])]
    if stated != "xywh" or any(np.abs(values[0] - box).max() <= SAME for box in given_boxes):
        return None
    return next((form for box in given_boxes if (form := suspect_form(values[:1], None, box))), None)


def fitting_form(pred: np.ndarray, gt: np.ndarray) -> str | None:
    """The form in which (N, 4) predictions overlap the annotations far better than as x,y,w,h; None for x,y,w,h.

    This finds results whose first row was written in another form than the others, or not written.
    """
    sample = slice(1, None, len(gt) // _SAMPLE + 1)  # without the given box
    pred, gt = pred[sample], gt[sample]
    counted = annotated(gt) & ~invalid(pred)
    if counted.sum() < _FEWEST:
        return None

    def mean_overlap(form: str) -> float:
        boxes = to_xywh(pred[counted], form)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 0)
        return float(overlap(boxes, gt[counted]).mean())

    as_stated = mean_overlap("xywh")
    if as_stated > _DOUBTFUL:
        return None
    means = {form: mean_overlap(form) for form in PIXEL_FORMS}
    best = max(means, key=lambda form: means[form])
    return best if means[best] >= max(_FITS, _TIMES * as_stated) and best != "xywh" else None


def _wrong_form(result: Result, source: ResultSource, form: str, why: str) -> WrongForm:
    """The error for a tracker whose boxes are in a form, with the option that converts them."""
    label = source.mean_of or source.label
    return WrongForm(f"{result.where}: the boxes are not x,y,w,h in pixels: {why}; convert those of {label} with "
                     f"--box-format {label}={form}, or say --box-format {label}=xywh if they are right as they are")


def align(pred: np.ndarray, sequence, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, str | None]:
    """Bring predictions and annotations to the same frames.

    The first row of a result file is the box that the tracker was given, so it tells which frame the rows begin at.
    These cases are accepted:

    - as many rows as frames; where the first one holds no number, the given box takes its place;
    - as many rows as the video has frames up to the last annotated one, where it has frames before the first that is
      tracked (`earlier`: OTB's Tiger1 is tracked from frame 6, David from frame 300): the rows before that are left
      out, if the first row is the annotation of the video's first frame, or the row of the first tracked frame is
      that frame's annotation;
    - more rows than frames otherwise, and the first row is the first annotation: the rows at the end are left out (some
      LaSOT results have them);
    - fewer rows, and the first row is the annotation of the frame that many frames later and not the first one's: the
      tracker was started late (OTB's Tiger1 again, where all its frames are annotated), and is compared from there on;
    - exactly one row fewer, and the first row is neither: the given box was not written, and is put back. It is never
      judged, so nothing depends on it.

    "Is" means within one pixel in all four numbers.

    Returns:
        predictions (M, 4), annotations (M, 4), visibility (M,) or None, and a note when something was adapted.

    Raises:
        UserError: any other difference in length.
    """
    gt, visible = np.asarray(sequence.ground_truth, dtype=np.float64), sequence.visible
    earlier = getattr(sequence, "earlier", None)
    before = 0 if earlier is None else len(earlier)
    lack = len(gt) - len(pred)

    def same(row: int, box: np.ndarray) -> bool:
        return row < len(pred) and bool(np.abs(pred[row] - box).max() <= _SAME_BOX)

    if lack == 0:
        if np.isnan(pred[0]).all():
            return (np.vstack([gt[:1], pred[1:]]), gt, visible,
                    "no box in the first row, where the given one stands, which is never judged")
        return pred, gt, visible, None
    if before and lack == -before:
        if same(0, earlier[0]) or same(before, gt[0]):
            return (pred[before:], gt, visible,
                    f"{before} rows for the frames before the first that is tracked left out")
    elif lack < 0 and same(0, gt[0]):
        return pred[:len(gt)], gt, visible, f"{-lack} rows beyond the {len(gt)} annotated frames left out"
    if 0 < lack < len(gt) and not same(0, gt[0]):
        if same(0, gt[lack]):
            return (pred, gt[lack:], None if visible is None else visible[lack:],
                    f"starts at frame {lack + 1}; compared with the annotations from there on")
        if lack == 1 and np.isfinite(gt[0]).all() and np.isfinite(pred[0]).all():
            return (np.vstack([gt[:1], pred]), gt, visible,
                    "one row short and without the first frame's box, which was put back")
    raise UserError(f"{where}: {len(pred)} boxes for the {len(gt)} annotated frames of {sequence.name}; one box per "
                    "frame was expected, and which frames the rows belong to is not plain")
