"""Work that leaves Python's lock free (it waits for the disk, or decodes), done by several threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

AHEAD = 8
"""Items per thread that are begun before their results are asked for, where nothing else is said."""

T = TypeVar("T")
R = TypeVar("R")


def map_in_threads(function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int = AHEAD) -> Iterator[R]:
    """`function` of each item, in order, computed by `threads` threads a little ahead of what is asked for.

    Args:
        ahead: items per thread that are begun before their results are asked for.

    An error of `function` is raised in its item's place; what was begun ends first, and nothing more is begun.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
