"""Reading tracking results: text with one box per line, columns by comma, tab, semicolon or spaces, or JSON.

What else is read, because it can only mean one thing, and noted: a first line that names the columns, in whose order
the boxes then are; four corners x1, y1, ..., x4, y4 in every line, which become their upright bounding box; and VOT's
code 1 in the first line, where the given box would stand.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...utils.errors import UserError
from ...utils.numbers import parse_table

SUFFIXES = (".txt", ".csv", ".json")
"""Of files with results of one sequence; the first goes before the others."""

_EXPECTED = "x, y, w, h: four numbers separated by comma, tab or space"
_LEFT, _TOP = {"x", "left", "xmin", "x_min", "x1", "bb_left"}, {"y", "top", "ymin", "y_min", "y1", "bb_top"}
_HEADERS = {
    "xywh": (_LEFT, _TOP, {"w", "width", "bb_width"}, {"h", "height", "bb_height"}),
    "xyxy": (_LEFT, _TOP, {"x2", "xmax", "x_max", "right"}, {"y2", "ymax", "y_max", "bottom"}),
    "cxcywh": ({"cx", "xc", "x_center", "center_x"}, {"cy", "yc", "y_center", "center_y"}, {"w", "width"},
               {"h", "height"})}
"""Form of boxes -> names by which its four columns are known in a first line."""
_FRAME_COLUMNS = {"", "frame", "frame_id", "frame_number", "index", "idx"}
"""Names of columns that count the frames."""
_JSON_KEYS = ("res", "boxes", "bboxes", "bbox", "pred", "results")
"""Under which of these the boxes stand in an object of JSON."""


class Rows(NamedTuple):
    """The boxes of a result file as they are written.

    Attributes:
        values: (N, 4) float64; NaN in the first row where a code stands in place of the given box.
        notes: one for each thing that was adapted.
        form: of the boxes (`lib.utils.box_forms.FORMS`), where the file names its columns; else None.
    """

    values: np.ndarray
    notes: list[str]
    form: str | None = None


def read_bytes(path: str | Path) -> bytes:
    """The content of a result file; UserError when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def parse_boxes(data: bytes, where: str) -> Rows:
    """Boxes of a result file's content.

    Args:
        data: the content.
        where: the file's name for messages; one that ends in .json is read as JSON.

    Raises:
        UserError: with file and line, when the file is empty or a line is not four numbers.
    """
    if where.lower().endswith(".json"):
        return json_rows(parse_json(data, where), where)
    notes, form, chosen, frames = [], None, slice(None), None
    begin = data.find(b"\n") + 1
    header = _words(data[:begin])
    is_code = header == ["1"]
    columns = _columns(header)
    if columns:
        form, chosen, frames, other_columns = columns
        notes.append("a header line left out"
                     + (f" and the column(s) {', '.join(other_columns)}" if other_columns else ""))
    elif not is_code:
        begin = 0
    values = parse_table(data[begin:])
    if values is not None and values.shape[1] == 8 and not columns and not _may_be_decimal_commas(data):
        notes.append("four corners per line; their upright bounding boxes are scored")
        values = _upright(values)
    if values is None or not len(values) or values.shape[1] != (len(header) if columns else 4):
        raise UserError(_first_problem(data, begin, where, len(header) if columns else 4))
    if frames is not None and (np.diff(values[:, frames]) != 1).any():
        raise UserError(f"{where}: the column {header[frames] or 'before the boxes'!r} does not rise by 1 from line to "
                        "line; one box per frame, in order, was expected")
    values = values[:, chosen]
    return Rows(np.vstack([np.full((1, 4), np.nan), values]) if is_code else values, notes, form)


def _upright(values: np.ndarray) -> np.ndarray:
    """(N, 8) four corners -> (N, 4) xywh of their upright bounding boxes."""
    corners = values.reshape(len(values), 4, 2)
    return np.hstack([corners.min(axis=1), corners.max(axis=1) - corners.min(axis=1)])


def _may_be_decimal_commas(data: bytes) -> bool:
    """Whether the first line is four fields with a comma in each and no point: 1,5 2,5 3,5 4,5."""
    line = data.lstrip().partition(b"\n")[0].decode(errors="replace").strip()
    fields = re.split(r"\s*;\s*|\s+", line)
    pairs = len(fields) == 4 and all(re.fullmatch(r"[+-]?\d+,\d+", field) for field in fields)
    return pairs or (";" in line and "," in line)


def parse_json(data: bytes, where: str) -> Any:
    """The content of a JSON file; UserError when it is none."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        found = f"line {error.lineno}, column {error.colno} is none" if data.strip() else "the file is empty"
        raise UserError(f"{where}: cannot be read as JSON: {found}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: cannot be read as JSON: it is no text in UTF-8 (see byte {error.start})") from error


def json_rows(content: Any, where: str) -> Rows:
    """Boxes of one sequence from JSON: a list of boxes [x, y, w, h], or an object that has it under `res` (as OTB's
    toolkits write it, in a list of one run) or another usual key.

    Raises:
        UserError: something else.
    """
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        content = content[0]
    if isinstance(content, dict):
        kind = content.get("type", "rect")
        if kind != "rect":
            raise UserError(f"{where}: results of the type {kind!r}; boxes x, y, w, h (type 'rect') were expected")
        keys = [key for key in _JSON_KEYS if key in content]
        content = content[keys[0] if len(keys) == 1 else next(iter(content))] if keys or len(content) == 1 else None
    try:
        values = np.array(content, dtype=np.float64)
    except (ValueError, TypeError):
        values = np.empty(0)
    if values.ndim != 2 or values.shape[1] not in (4, 8) or not len(values):
        bad = next((i for i, box in enumerate(content) if not isinstance(box, list) or len(box) not in (4, 8)), None
                   ) if isinstance(content, list) else None
        found = "" if bad is None else f"; entry {bad + 1} is {json.dumps(content[bad])[:60]}"
        raise UserError(f"{where}: expected a list of boxes [x, y, w, h], one per frame, or an object with that list "
                        f"under one of {', '.join(_JSON_KEYS)}{found}")
    if values.shape[1] == 8:
        return Rows(_upright(values), ["four corners per box; their upright bounding boxes are scored"])
    return Rows(values, [])


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


def _columns(names: list[str]) -> tuple[str, list[int], int | None, list[str]] | None:
    """What a first line names: the form of the boxes, the places of their columns, that of a column that counts the
    frames, and the names of all other columns. None where it does not name four columns of one form."""
    for form, aliases in _HEADERS.items():
        places = [[i for i, name in enumerate(names) if name in column] for column in aliases]
        if all(len(place) == 1 for place in places):
            chosen = [place[0] for place in places]
            other_columns = [name or "without a name" for i, name in enumerate(names) if i not in chosen]
            frames = next((i for i, name in enumerate(names) if name in _FRAME_COLUMNS), None)
            return form, chosen, frames, other_columns
    return None


def _words(line: bytes) -> list[str]:
    """What stands between the separators of a line, in lower case, without quotation marks and a comment's mark."""
    text = line.decode("utf-8-sig", errors="replace").rstrip(",;\t \r\n").lstrip("#% ").lower()
    words = re.split(r"[,;\t]", text) if re.search(r"[,;\t]", text) else text.split()
    return [word.strip(" \"'") for word in words]


def _lines(data: bytes, where: str) -> list[tuple[int, str]]:
    """The lines of a text file with their numbers from 1, without the empty ones at its end."""
    try:
        lines = data.decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not a text file ({error.reason}); one box per line was expected") from error
    if not lines:
        raise UserError(f"{where}: the file is empty")
    return list(enumerate(lines, start=1))


def _first_problem(data: bytes, begin: int, where: str, expected: int) -> str:
    """What is wrong with the first bad line of a result file whose boxes begin at byte `begin`, in `expected` columns.
    """
    lines = _lines(data, where)
    if begin:
        del lines[0]
    for number, line in lines:
        place, shown = f"{where}, line {number}: ", repr(line.strip()[:60])
        if not line.strip():
            return f"{place}an empty line between boxes; {_EXPECTED} were expected on every line, one per frame"
        columns = len(line.replace(",", " ").replace(";", " ").split())
        if columns != expected:
            problem = f"{place}{columns} column(s) in {shown}; expected {_EXPECTED}"
            if columns == 1 and line.strip() in ("0", "1", "2"):
                return problem + (" (codes of a VOT run with restarts, which has no box in every frame; take the run "
                                  "without restarts)")
            commas = _may_be_decimal_commas(line.encode())
            return problem + (" (decimal commas cannot be told from commas between columns)" if commas else "")
        if parse_table(line.encode()) is None:
            return f"{place}{shown} is not numeric; expected {_EXPECTED}"
    return f"{where}: expected one box per line, {_EXPECTED}"
