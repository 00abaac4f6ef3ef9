"""Reading tracking results from text files: one box x, y, w, h per line, columns by comma, tab, semicolon or spaces."""

from pathlib import Path

import numpy as np

from lib.utils.errors import UserError

_SEPARATORS = str.maketrans(",;\t", "   ")


def read_boxes(path: str | Path) -> np.ndarray:
    """Boxes of a result file: (N, 4) float64 xywh.

    Raises:
        UserError: with file and line, when the file is empty or a line is not four finite numbers with width and
            height >= 0.
    """
    path = Path(path)
    lines = _lines(path)
    values = _numbers(lines, columns=4)
    if values is None or not np.isfinite(values).all() or (values[:, 2:] < 0).any():
        raise UserError(_first_problem(path, lines))
    return values


def read_times(path: str | Path) -> np.ndarray:
    """Seconds per frame of a time file: (N,) float64.

    Raises:
        UserError: with file and line, when the file is empty or a line is not one number >= 0.
    """
    path = Path(path)
    lines = _lines(path)
    values = _numbers(lines, columns=1)
    if values is not None and np.isfinite(values).all() and (values >= 0).all():
        return values[:, 0]
    for number, line in enumerate(lines, start=1):
        value = _numbers([line], columns=1)
        if value is None or not np.isfinite(value).all() or (value < 0).any():
            raise UserError(f"{path}, line {number}: found {line.strip()!r}; one number of seconds was expected")
    raise UserError(f"{path}: one number of seconds per line was expected")


def _lines(path: Path) -> list[str]:
    """The lines of a text file without the empty ones at its end."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file ({error.reason}); one box per line was expected") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    lines = text.rstrip().splitlines()
    if not lines:
        raise UserError(f"{path}: the file is empty; run the tracker on this sequence again")
    return lines


def _numbers(lines: list[str], columns: int) -> np.ndarray | None:
    """(lines, columns) numbers, or None when the lines do not have that form."""
    rows = [line.translate(_SEPARATORS).split() for line in lines]
    if any(len(row) != columns for row in rows):
        return None
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError:
        return None


def _first_problem(path: Path, lines: list[str]) -> str:
    """What is wrong with the first bad line of a result file."""
    expected = "x, y, w, h: four numbers separated by comma, tab or space"
    for number, line in enumerate(lines, start=1):
        place = f"{path}, line {number}: "
        if not line.strip():
            return f"{place}an empty line between boxes; {expected} were expected on every line, one per frame"
        columns = len(line.translate(_SEPARATORS).split())
        if columns != 4:
            return f"{place}{columns} column(s) in {line.strip()!r}; expected {expected}"
        row = _numbers([line], columns=4)
        if row is None:
            return f"{place}{line.strip()!r} is not numeric; expected {expected}"
        if not np.isfinite(row).all():
            return f"{place}{line.strip()!r} is not finite; a tracker has to give a box in every frame"
        if (row[0, 2:] < 0).any():
            return f"{place}negative width or height in {line.strip()!r}; expected x, y, w, h (not two corners)"
    return f"{path}: expected one box per line, {expected}"
