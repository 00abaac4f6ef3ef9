"""Box files that are not one x,y,w,h per line: VOT's regions and the tables of NFS."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...utils.box_files import absent_as_nan, read_boxes, read_text
from ...utils.errors import UserError


def read_regions(path: str | Path) -> np.ndarray:
    """Boxes around the regions of VOT's groundtruth.txt, one region per line.

    A line is a rectangle x,y,w,h; a polygon x1,y1,x2,y2,... with three corners or more, whose box runs from the
    smallest to the largest coordinate (the rule of PyTracking and OSTrack; the GOT-10k toolkit shrinks it to the
    polygon's area instead); a mask m<x>,<y>,<w>,<h>,<run lengths>, where runs of pixels outside and inside alternate
    row by row through the w x h window at (x, y); or a single number, VOT's code for a frame without a region.

    Returns:
        (N, 4) float64 xywh; NaN in all four where there is no region.

    Raises:
        UserError: the file cannot be read, is empty, or a line is none of these; file and line are named.
    """
    return _read_lines(path, _region_box, "a rectangle, a polygon or a mask of VOT")


def read_vatic(path: str | Path) -> np.ndarray:
    """Boxes of a file that the annotation tool VATIC wrote, as NFS has them.

    A line is <track> <xmin> <ymin> <xmax> <ymax> <frame> <lost> <occluded> <generated> "<label>", in pixels, separated
    by spaces. The flags are not used: the benchmark scores every frame.

    Returns:
        (N, 4) float64 xywh in the file's order; NaN where a box has no area.

    Raises:
        UserError: the file cannot be read, is empty, or a line does not begin so; file and line are named.
    """
    return _read_lines(path, _vatic_box, "<track> <xmin> <ymin> <xmax> <ymax> ...")


READERS: dict[str, Callable[[str | Path], np.ndarray]] = {
    "xywh": read_boxes, "region": read_regions, "vatic": read_vatic}
"""Format in a benchmark's data file -> function from a box file to (N, 4) xywh."""


def _read_lines(path: str | Path, parse: Callable[[str], list[float]], expected: str) -> np.ndarray:
    """(N, 4) boxes of the lines of a file; `parse` raises ValueError for a line that is not what was `expected`."""
    lines = read_text(path, "box file").rstrip().splitlines()
    if not lines:
        raise UserError(f"{path}: expected {expected} in each line, found an empty file")
    boxes_xywh = np.empty((len(lines), 4))
    for i, line in enumerate(lines):
        try:
            boxes_xywh[i] = parse(line.strip())
        except ValueError as error:
            raise UserError(f"{path}, line {i + 1}: expected {expected}, found {line[:60]!r}") from error
    return absent_as_nan(boxes_xywh)


def _vatic_box(line: str) -> list[float]:
    left, top, right, bottom = map(float, line.split()[1:5])
    return [left, top, right - left, bottom - top]


def _region_box(line: str) -> list[float]:
    """xywh around one region; NaN for none. ValueError for anything that is no region."""
    if line.startswith("m"):
        return _mask_box([int(value) for value in line[1:].split(",")])
    numbers = [float(value) for value in line.replace(",", " ").split()]
    if len(numbers) == 1:
        return [np.nan] * 4
    if len(numbers) == 4:
        return numbers
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(f"{len(numbers)} numbers")
    x, y = numbers[0::2], numbers[1::2]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _mask_box(numbers: list[int]) -> list[float]:
    """xywh around the pixels of a run-length mask, counted in whole pixels; NaN for an empty one.

    Args:
        numbers: x, y, w, h of the window, then the lengths of the runs, the first outside.
    """
    x, y, width, height, *runs = numbers
    ends = np.cumsum(runs, dtype=np.int64)
    if width < 0 or height < 0 or min(runs, default=0) < 0 or (len(ends) and ends[-1] > width * height):
        raise ValueError("runs do not fit the window")
    inside = np.flatnonzero(runs[1::2])
    if not len(inside):
        return [np.nan] * 4
    first, last = ends[0::2][inside], ends[1::2][inside] - 1
    top, bottom = first[0] // width, last[-1] // width
    if (first // width < last // width).any():  # a run that goes on in the next row touches both sides
        left, right = 0, width - 1
    else:
        left, right = (first % width).min(), (last % width).max()
    return [x + left, y + top, right - left + 1, bottom - top + 1]
