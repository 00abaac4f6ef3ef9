"""Text files of a sequence: boxes, visibility, and lists of names."""

from pathlib import Path

import numpy as np

from .errors import UserError
from .storage import DISK, Storage, as_text, joined

LABEL_FILES = {"absence.label": False, "cover.label": True, "full_occlusion.txt": False, "out_of_view.txt": False}
"""Name of a label file -> whether a number above 0 in it says that the target is seen."""


def parse_boxes(text: str, name: str, keep: bool = False) -> np.ndarray:
    """Boxes of a box file's text: one line x,y,w,h per frame, separated by commas, semicolons, tabs or spaces.

    Args:
        text: the file's content.
        name: the file's name for messages.
        keep: give the numbers as they are, for boxes of another form.

    Returns:
        (N, 4) float64; NaN in all four where a line holds NaN or a size that is not positive (the target is absent).

    Raises:
        UserError: there is no line, or a line does not hold four numbers.
    """
    lines = text.rstrip().splitlines()
    rows = [line.replace(",", " ").replace(";", " ").split() for line in lines]
    try:
        boxes = np.array(rows, dtype=np.float64)
    except ValueError:
        boxes = np.empty(0)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        bad = next((i for i, row in enumerate(rows) if not _four_numbers(row)), 0)
        found = repr(lines[bad][:60]) if lines else "an empty file"
        raise UserError(f"{name}, line {bad + 1}: expected four numbers x,y,w,h, found {found}")
    return boxes if keep else absent_as_nan(boxes)


def absent_as_nan(boxes_xywh: np.ndarray) -> np.ndarray:
    """(N, 4) boxes with NaN in all four numbers, in place, where one is not finite or a size is not positive."""
    absent = ~(np.isfinite(boxes_xywh).all(axis=1) & (boxes_xywh[:, 2] > 0) & (boxes_xywh[:, 3] > 0))
    boxes_xywh[absent] = np.nan
    return boxes_xywh


def read_boxes(path: str | Path) -> np.ndarray:
    """Read a box file: see :func:`parse_boxes`."""
    return parse_boxes(read_text(path, "box file"), str(path))


def _four_numbers(row: list[str]) -> bool:
    try:
        return len([float(value) for value in row]) == 4
    except ValueError:
        return False


def read_visibility(folder: str | Path, count: int, storage: Storage = DISK) -> np.ndarray | None:
    """Visibility of `count` frames from the label files of GOT-10k or LaSOT in a sequence folder.

    GOT-10k: visible where absence.label is 0 and cover.label is above 0. LaSOT: visible where neither
    full_occlusion.txt nor out_of_view.txt is set. A file that is not there says nothing.

    Args:
        folder: the sequence folder in its storage.
        count: number of boxes.
        storage: where it lies.

    Returns:
        (count,) bool, or None when there is no label file.

    Raises:
        UserError: a label file holds something else than whole numbers, or fewer than `count`.
    """
    visible = None
    for name, seen_when_set in LABEL_FILES.items():
        file = joined(str(folder), name)
        if not storage.has_file(file):
            continue
        where, text = storage.locate(file), storage.read_text(file)
        words = text.replace(",", " ").split()
        try:
            labels = np.array(words, dtype=np.int64)
        except ValueError as error:
            wrong = next((word for word in words if not word.lstrip("+-").isdecimal()), words[0])
            raise UserError(f"{where}: expected one whole number per frame, found {wrong[:40]!r}") from error
        if len(labels) < count:
            raise UserError(f"{where} holds {len(labels)} labels for {count} boxes")
        good = (labels[:count] > 0) == seen_when_set
        visible = good if visible is None else visible & good
    return visible


def read_text(path: str | Path, kind: str) -> str:
    """The text of a file; UserError naming its `kind` where it cannot be read."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the {kind} {path}: {error.strerror or error}") from error
    return as_text(data, str(path))


def read_names(path: str | Path) -> list[str]:
    """:func:`parse_names` of a list file on the disk."""
    return parse_names(read_text(path, "list of sequences"))


def parse_names(text: str) -> list[str]:
    """Names of sequences from a list file's text: one per line, empty lines and lines that start with # left out."""
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
