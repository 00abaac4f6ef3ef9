"""Reading tracking results from text files: one box x, y, w, h per line, columns by comma, tab, semicolon or spaces.

What else is read, because it can only mean one thing, and noted: one line of column names (x, y, w, h) before the
boxes, and four corners x1, y1, ..., x4, y4 in every line, which become their upright bounding box.
"""

from pathlib import Path

import numpy as np

from ...utils.errors import UserError
from ...utils.numbers import parse_table

_EXPECTED = "x, y, w, h: four numbers separated by comma, tab or space"
_HEADERS = (("x", "left", "xmin"), ("y", "top", "ymin"), ("w", "width"), ("h", "height"))
"""Column names by which a first line is known as a header of x, y, w, h."""


def read_bytes(path: str | Path) -> bytes:
    """The content of a result file; UserError when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_boxes(path: str | Path) -> np.ndarray:
    """Boxes of a result file, as `parse_boxes` reads it: (N, 4) float64 xywh. UserError as from there."""
    return parse_boxes(read_bytes(path), str(path))[0]


def parse_boxes(data: bytes, where: str, repair: bool = False) -> tuple[np.ndarray, list[str]]:
    """Boxes of a result file's content.

    Args:
        data: the content.
        where: the file's name for messages.
        repair: let boxes through that are not finite or have a negative side; the scoring repeats the one before.

    Returns:
        (N, 4) float64 xywh, and a note for each thing that was adapted.

    Raises:
        UserError: with file and line, when the file is empty or a line is not four finite numbers with width and
            height >= 0.
    """
    notes = []
    begin = data.find(b"\n") + 1 if _is_header(data) else 0
    if begin:
        notes.append("a header line left out")
    values = parse_table(data[begin:])
    if values is not None and values.shape[1] == 8 and not (b";" in data and b"," in data):
        notes.append("four corners per line; their upright bounding boxes are scored")
        corners = values.reshape(len(values), 4, 2)
        values = np.hstack([corners.min(axis=1), corners.max(axis=1) - corners.min(axis=1)])
    if values is None or values.shape[1] != 4 or not len(values):
        raise UserError(_first_problem(data, begin, where))
    good = np.isfinite(values).all(axis=1) & (values[:, 2:] >= 0).all(axis=1)
    if not good.all() and not repair:
        raise UserError(_first_problem(data, begin, where))
    return values, notes


def parse_times(data: bytes, where: str) -> np.ndarray:
    """Seconds per frame of a time file's content: (N,) float64.

    Raises:
        UserError: with file and line, when the file is empty or a line is not one number >= 0.
    """
    values = parse_table(data)
    if values is not None and values.shape[1] == 1 and np.isfinite(values).all() and (values >= 0).all():
        return values[:, 0]
    for number, line in _lines(data, where):
        value = parse_table(line.encode())
        if value is None or value.shape != (1, 1) or not 0 <= value[0, 0] < np.inf:
            raise UserError(f"{where}, line {number}: found {line.strip()!r}; one number of seconds was expected")
    raise UserError(f"{where}: one number of seconds per line was expected")


def _is_header(data: bytes) -> bool:
    """Whether the first line names the columns x, y, w, h."""
    names = _words(data[:data.find(b"\n") + 1].decode("utf-8-sig", errors="replace").lower())
    return len(names) == 4 and all(name in known for name, known in zip(names, _HEADERS, strict=True))


def _words(line: str) -> list[str]:
    """What stands between the separators of a line."""
    return line.replace(",", " ").replace(";", " ").split()


def _lines(data: bytes, where: str) -> list[tuple[int, str]]:
    """The lines of a text file with their numbers from 1, without the empty ones at its end."""
    try:
        lines = data.decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not a text file ({error.reason}); one box per line was expected") from error
    if not lines:
        raise UserError(f"{where}: the file is empty; run the tracker on this sequence again")
    return list(enumerate(lines, start=1))


def _first_problem(data: bytes, begin: int, where: str) -> str:
    """What is wrong with the first bad line of a result file whose boxes begin at byte `begin`."""
    lines = _lines(data, where)
    if begin:
        del lines[0]
    for number, line in lines:
        place, shown = f"{where}, line {number}: ", repr(line.strip()[:60])
        if not line.strip():
            return f"{place}an empty line between boxes; {_EXPECTED} were expected on every line, one per frame"
        columns = len(_words(line))
        if columns != 4:
            problem = f"{place}{columns} column(s) in {shown}; expected {_EXPECTED}"
            mixed = "," in line and ";" in line
            return problem + (" (decimal commas cannot be told from commas between columns)" if mixed else "")
        row = parse_table(line.encode())
        if row is None:
            return f"{place}{shown} is not numeric; expected {_EXPECTED}"
        if not np.isfinite(row).all():
            return (f"{place}{shown} is not finite; a tracker has to give a box in every frame (--convention lasot "
                    "repeats the box before it, as the LaSOT toolkit does)")
        if (row[0, 2:] < 0).any():
            return f"{place}negative width or height in {shown}; expected x, y, w, h (not two corners)"
    return f"{where}: expected one box per line, {_EXPECTED}"
