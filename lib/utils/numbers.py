"""Tables of numbers in text files, read fast."""

import codecs
import warnings
from typing import Any

import numpy as np

_SEPARATORS = bytes.maketrans(b",;\t\r", b"    ")
_POWERS = 10.0 ** np.arange(23)
"""The powers of ten that are exact in float64."""


def parse_table(data: bytes) -> np.ndarray | None:
    """Numbers of a text: one row per line, columns separated by commas, semicolons, tabs or spaces.

    A byte order mark, Windows line ends and empty lines at the end are no part of the table; `nan` and `inf` are
    numbers.

    Returns:
        (rows, columns) float64, each the number nearest to what is written; None when the lines do not all hold the
        same number of numbers, when one is empty or when something is not a number. An empty text has no rows and no
        columns.
    """
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")  # line ends of old Macs
    text = data.removeprefix(codecs.BOM_UTF8).translate(_SEPARATORS).rstrip()
    if not text:
        return np.empty((0, 0))
    letters = np.frombuffer(text, np.uint8)
    inked = letters > ord(" ")
    ends = np.append(np.flatnonzero(inked[:-1] & ~inked[1:]), len(letters) - 1)  # last letters of the numbers
    line_ends = np.append(np.flatnonzero(letters == ord("\n")), len(letters))
    columns = np.diff(np.searchsorted(ends, line_ends), prepend=0)
    if (columns != columns[0]).any() or columns[0] == 0:
        return None
    values = _decimals(text, letters, ends)
    if values is None:
        values = _scan(text, np.float64, len(ends))
    return None if values is None else values.reshape(len(columns), -1)


def _decimals(text: bytes, letters: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """Numbers such as 12 and -3.45, read as integers and divided by powers of ten, ten times as fast as other ways.

    Both sides of the division are exact, so that the quotient is rounded once. None for anything else.
    """
    points = np.flatnonzero(letters == ord("."))
    owners = np.searchsorted(ends, points)
    places = np.zeros(len(ends), dtype=np.intp)
    places[owners] = ends[owners] - points
    if (np.diff(owners) == 0).any() or places.max() >= len(_POWERS):
        return None
    digits = _scan(text.translate(None, b"."), np.int64, len(ends))
    if digits is None or np.abs(digits.astype(np.float64)).max() >= 2 ** 53:
        return None
    return digits / _POWERS[places]


def _scan(text: bytes, dtype: Any, count: int) -> np.ndarray | None:
    """`count` numbers separated by white space, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # what NumPy gives when it meets something else
        try:
            values = np.fromstring(text, dtype=dtype, sep=" ")
        except (DeprecationWarning, ValueError):
            return None
    return values if len(values) == count else None
