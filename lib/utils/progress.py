"""Progress through a known number of items: a bar on a terminal, a plain line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

LINE_EVERY = 5.0
"""Seconds between plain lines."""

T = TypeVar("T")


class Progress:
    """How far a job is, as a context manager.

    Args:
        total: how many items there are.
        label: what is done, e.g. "index of LASOT".
        unit: what an item is, e.g. "sequences".
        done: how many were done before.
    """

    def __init__(self, total: int, label: str, unit: str, done: int = 0):
        self._total, self._label, self._unit = total, label, unit
        self._done = self._before = done
        self._begin = self._last_line = time.monotonic()
        self._bar = tqdm(total=total, initial=done, desc=label, unit=f" {unit}", dynamic_ncols=True, leave=False,
                         disable=not sys.stderr.isatty())

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()

    def advance(self, items: int = 1) -> None:
        """`items` more are done."""
        self._done += items
        self._bar.update(items)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            rate = max(self._done - self._before, 1) / max(now - self._begin, 1e-9)
            logger.info("%s: %d of %d %s, %.1f per second, %s left", self._label, self._done, self._total, self._unit,
                        rate, clock((self._total - self._done) / rate))


def clock(seconds: float) -> str:
    """Hours (when there are any), minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def progress(items: Iterable[T], total: int, label: str, unit: str) -> Iterator[T]:
    """`items` one after the other, shown while they pass; the arguments are those of `Progress`."""
    with Progress(total, label, unit) as shown:
        for item in items:
            yield item
            shown.advance()
