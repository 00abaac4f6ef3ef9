"""In which form boxes are written: what a file claims, and what its numbers say.

Everything here expects x,y,w,h in pixels. Two other forms are common, corners x1,y1,x2,y2 and parts of the picture's
width and height, and all are four numbers: read as the wrong one, boxes are silently wrong. Numbers alone can tell only
where they speak clearly, so :func:`suspect_form` names a form when there is hardly another explanation and is silent
otherwise.
"""

import numpy as np

PIXEL_FORMS = ("xywh", "xyxy", "cxcywh")
NORMALISED = "normalised-"
"""Start of the names of the forms in parts of the picture's width and height."""
FORMS = (*PIXEL_FORMS, *(NORMALISED + form for form in PIXEL_FORMS))

FEWEST = 5
"""Boxes from which corners can be told."""
BEYOND = 1.05
"""Part of the picture's side from which a box counts as reaching beyond it: annotators draw a little over the edge."""
FOLLOWS = 0.35
"""Correlation of the steps of x,y with those of the other two numbers from which these are corners, too."""
SAME = 1.5
"""Pixels within which two boxes are the same: rounding, or counting from 1."""


def to_xywh(boxes: np.ndarray, form: str, size: tuple[int, int] | np.ndarray | None = None) -> np.ndarray:
    """Boxes of a form as top-left corner and size in pixels.

    Args:
        boxes: (..., 4).
        form: one of `FORMS`.
        size: width and height of the picture, or of each box's, (..., 2); only for normalised forms.

    Returns:
        (..., 4) float64, a new array.
    """
    boxes = np.array(boxes, np.float64)
    if form.startswith(NORMALISED):
        boxes *= np.concatenate([np.asarray(size, np.float64)] * 2, axis=-1)
    form = form.removeprefix(NORMALISED)
    if form == "xyxy":
        boxes[..., 2:] -= boxes[..., :2]
    elif form == "cxcywh":
        boxes[..., :2] -= boxes[..., 2:] / 2
    return boxes


def suspect_form(boxes: np.ndarray, size: tuple[int, int] | np.ndarray | None = None,
                 reference: np.ndarray | None = None) -> str | None:
    """The form that boxes are in, where it is surely not x,y,w,h in pixels.

    Args:
        boxes: (N, 4) numbers of a file; rows that are not finite or have no size do not count.
        size: width and height of the picture, or (N, 2) of each box's; None where it is not known, and then corners
            are told by `reference` only.
        reference: (4,) xywh in pixels that the first row must be (the given box, of results); None where there is none.

    Returns:
        One of `FORMS` other than xywh, or None.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if reference is not None and len(boxes):
        matching = _forms_of(boxes[0], size, reference)
        if matching and (matching[0] != "xywh" or len(matching) == 1):
            return None if matching[0] == "xywh" else matching[0]
    boxes, sizes = _counted(boxes, size)
    if not len(boxes):
        return None
    if are_normalised(boxes):
        return NORMALISED + ("xyxy" if _are_corners(boxes, np.ones((len(boxes), 2))) else "xywh")
    return "xyxy" if sizes is not None and _are_corners(boxes, sizes) else None


def could_be_corners(boxes: np.ndarray) -> bool:
    """Whether (N, 4) numbers need a look at the picture's size for `suspect_form` to tell corners."""
    boxes, _ = _counted(boxes)
    return len(boxes) >= FEWEST and bool((boxes[:, 2:] > boxes[:, :2]).all())


def are_normalised(boxes: np.ndarray) -> bool:
    """Whether (N, 4) boxes with sizes are parts of a picture: all smaller than a pixel, and at its first pixel."""
    return bool(boxes.min() >= -0.5 and boxes[:, :2].max() <= 1.5 and boxes[:, 2:].max() <= BEYOND
                and (boxes != np.round(boxes)).any())


def why_suspected(form: str, boxes: np.ndarray, size: tuple[int, int] | np.ndarray | None = None) -> str:
    """What speaks for the form that `suspect_form` gives, as a part of a sentence."""
    boxes, sizes = _counted(boxes, size)
    count = len(boxes)
    if form.startswith(NORMALISED):
        return f"all {count} boxes lie within 0..1, as parts of the picture's width and height do"
    if sizes is None:
        return f"read as {form} the first box is the given one"
    beyond = int((boxes[:, :2] + boxes[:, 2:] > BEYOND * sizes).any(axis=1).sum())
    return (f"{beyond} of {count} boxes reach beyond the picture as x,y,w,h, and none as corners x1,y1,x2,y2" if beyond
            else f"width and height of the {count} boxes follow x and y, as corners x1,y1,x2,y2 do")


def _counted(boxes: np.ndarray, size: tuple[int, int] | np.ndarray | None = None
             ) -> tuple[np.ndarray, np.ndarray | None]:
    """The boxes (M, 4) that are finite and have a size, and the sizes (M, 2) of their pictures."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    counted = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    sizes = None if size is None else np.broadcast_to(np.asarray(size, np.float64), (len(boxes), 2))[counted]
    return boxes[counted], sizes


def _forms_of(row: np.ndarray, size: tuple[int, int] | np.ndarray | None, reference: np.ndarray) -> list[str]:
    """The forms in which one row is the reference, xywh first."""
    sizes = None if size is None else np.asarray(size, np.float64).reshape(-1, 2)[0]
    return [form for form in (FORMS if sizes is not None else PIXEL_FORMS)
            if np.abs(to_xywh(row, form, sizes) - reference).max() <= SAME]


def _are_corners(boxes: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether (N, 4) boxes make sense in pictures of (N, 2) sizes as corners, and do not as xywh.

    As corners, all of them have an area and lie in the picture, which of x,y,w,h few sequences do (8 of the 683 of
    LaSOT's test set, GOT-10k's validation set, OTB-100 and UAV123). And as xywh, one of: most reach beyond the
    picture's right or lower edge, while width and height vary more than those of the corners; nearly all reach beyond
    both edges; or width and height go with x and y from box to box, as corners do where the target moves (the
    correlation of x,y,w,h is at most 0.05 in those 8 sequences).
    """
    first, second = boxes[:, :2], boxes[:, 2:]
    inside = (first >= -0.05 * sizes).all() and (second <= 1.02 * sizes + 2 * (sizes > 1)).all()
    if len(boxes) < FEWEST or not inside or not (second > first).all():
        return False
    beyond = first + second > BEYOND * sizes
    steadier = (second - first).std(axis=0).sum() < 0.9 * second.std(axis=0).sum()
    steps, other_steps = np.diff(first, axis=0), np.diff(second, axis=0)
    lengths = np.sqrt((steps ** 2).sum() * (other_steps ** 2).sum())
    by_chance = 2 / np.sqrt(2 * len(steps))
    return bool((beyond.any(axis=1).mean() >= 0.5 and steadier) or beyond.all(axis=1).mean() >= 0.8
                or (steps * other_steps).sum() > (FOLLOWS + by_chance) * lengths)
