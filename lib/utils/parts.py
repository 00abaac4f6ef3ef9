"""Where the time of a repeated job goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lib.utils.device import synchronize


class PartTimes:
    """Seconds that the named parts of a job took, each from an idle device to an idle device.

    Waiting for the device between the parts costs what they would overlap, so the whole is timed apart.

    Args:
        device: waited for at both ends of a part.

    Attributes:
        seconds: name -> seconds of each time that the part ran, in the order in which the parts first ran.
    """

    def __init__(self, device: torch.device | str = "cpu"):
        self.seconds: dict[str, list[float]] = {}
        self._device = torch.device(device)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """The block is (a further run of) the part `name`; a block that raises does not count."""
        synchronize(self._device)
        start = time.perf_counter()
        yield
        synchronize(self._device)
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
