"""Work that leaves Python's lock free (it waits for the disk, or decodes), done by several threads."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

AHEAD = 8
"""Items per thread that are begun before their results are asked for, where nothing else is said."""

T = TypeVar("T")
R = TypeVar("R")


def usable_cpus() -> int:
    """CPUs that this process may use, where the system tells; else those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_compute_threads(threads: int) -> None:
    """Let PyTorch (where it is loaded) and OpenCV compute with so many threads in this process; engines of exports that
    are made later take PyTorch's number."""
    import cv2

    cv2.setNumThreads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


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


class BackgroundCalls:
    """Makes calls in a thread of its own, one after the other in the order given, a little behind the caller.

    A context manager: the end of its block waits for all calls. A block that ends with an exception gives up those that
    have not begun.

    Args:
        most: calls that are given and not done; with so many, the caller waits.
    """

    def __init__(self, most: int):
        self._most = most
        self._pool = ThreadPoolExecutor(1, "behind")
        self._given: deque[Future] = deque()

    def do(self, function: Callable[..., Any], *args: Any) -> None:
        """Make this call later. What an earlier call raised is raised here, or at the end of the block."""
        while self._given and (self._given[0].done() or len(self._given) >= self._most):
            self._given.popleft().result()
        self._given.append(self._pool.submit(function, *args))

    def __enter__(self) -> "BackgroundCalls":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for future in self._given:
                future.result()
