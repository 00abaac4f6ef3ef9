"""Progress through a known number of items: a bar on a terminal, a plain line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

LINE_EVERY = 15.0
"""Seconds between plain lines."""

T = TypeVar("T")


def progress(items: Iterable[T], total: int, label: str, unit: str) -> Iterator[T]:
    """`items` one after the other, shown while they pass.

    Args:
        items: what is counted.
        total: how many there are.
        label: what is done, e.g. "index of LASOT".
        unit: what an item is, e.g. "sequences".
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=label, unit=f" {unit}", dynamic_ncols=True, leave=False)
        return
    last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            logger.info("%s: %d of %d %s", label, done, total, unit)
