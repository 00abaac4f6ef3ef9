"""Where the time of a repeated job goes: its parts as blocks of code, or as what lies between marks."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from .device import synchronize


class PartTimes:
    """Seconds that the named parts of a job took, each from an idle device to an idle device.

    Waiting for the device between the parts costs what they would overlap, so the whole is timed apart. What a part
    inside another takes counts for the inner one only.

    Args:
        device: waited for at both ends of a part.

    Attributes:
        seconds: name -> seconds of each time that the part ran, in the order in which the parts first ran.
    """

    def __init__(self, device: torch.device | str = "cpu"):
        self.seconds: dict[str, list[float]] = {}
        self._device = torch.device(device)
        self._inside = 0.0
        """Seconds of the parts inside the one that runs."""

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """The block is (a further run of) the part `name`; a block that raises does not count."""
        synchronize(self._device)
        around, self._inside = self._inside, 0.0
        start = time.perf_counter()
        try:
            yield
            synchronize(self._device)
            elapsed = time.perf_counter() - start
            self.seconds.setdefault(name, []).append(elapsed - self._inside)
            around += elapsed
        finally:
            self._inside = around

    def total(self, name: str) -> float:
        """Seconds of all runs of the part `name`; 0 for one that has not run."""
        return sum(self.seconds.get(name, ()))


def measured(parts: PartTimes | None, name: str) -> AbstractContextManager[None]:
    """The block is the part `name` of `parts`; with None nothing is measured."""
    return nullcontext() if parts is None else parts.measure(name)


class PartMarks:
    """Seconds of the parts of steps: by events in the device's own time on CUDA, by the clock on a CPU.

    On CUDA a part is what the device did, or waited for, between two marks; the host runs ahead and is not slowed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[str, Any]] = []

    def mark(self, part: str) -> None:
        """The part that began with the last mark has been queued."""
        if self._device.type == "cuda":
            now: Any = torch.cuda.Event(enable_timing=True)
            now.record(torch.cuda.current_stream(self._device))
        else:
            now = time.perf_counter()
        self._marks.append((part, now))

    def take(self) -> dict[str, float]:
        """Seconds by part since the last call; the first mark only starts the time."""
        synchronize(self._device)
        seconds: dict[str, float] = defaultdict(float)
        for (_, before), (part, after) in zip(self._marks, self._marks[1:], strict=False):
            seconds[part] += before.elapsed_time(after) / 1000 if self._device.type == "cuda" else after - before
        self._marks = []
        return seconds
