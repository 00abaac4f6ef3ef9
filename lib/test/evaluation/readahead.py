"""Frames that are read while the tracker works on those before them."""

import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...utils.frames import ImageFrames

FRAMES_AHEAD = 16
"""Frames that are read ahead, as far as they fit into `BYTES_AHEAD`."""
BYTES_AHEAD = 64 * 2**20
"""Memory for decoded frames that wait for the tracker; one frame is read ahead however large it is."""
READERS = 2
"""Threads that decode pictures. Other sources, such as videos, are read by one, in order."""


class ReadAhead:
    """Iterates over the frames of a sequence once, in order, while threads read the next ones.

    A frame that cannot be read raises where it would have been given, as without reading ahead. Leaving the loop early
    needs `close()` of the iterator (`contextlib.closing`), which waits for the frames that are being read.

    Args:
        frames: `len(frames)` and `frames[i]`, RGB uint8 (H, W, 3). Pictures may be read by several threads at once.
        ahead: most frames that are read ahead; 0 reads each frame when it is asked for.
        budget: bytes that frames read ahead may take, judged by the first frame.

    Attributes:
        waited: seconds that the loop has waited for frames so far.
    """

    def __init__(self, frames: Sequence[np.ndarray], ahead: int = FRAMES_AHEAD, budget: int = BYTES_AHEAD):
        self._frames, self._ahead, self._budget = frames, ahead, budget
        self.waited = 0.0

    def __iter__(self) -> Generator[np.ndarray, None, None]:
        return self._read_threaded() if self._ahead else self._read_plainly()

    def _read_plainly(self) -> Generator[np.ndarray, None, None]:
        for number in range(len(self._frames)):
            start = time.perf_counter()
            image = self._frames[number]
            self.waited += time.perf_counter() - start
            yield image

    def _read_threaded(self) -> Generator[np.ndarray, None, None]:
        count = len(self._frames)
        ahead = 1  # until the first frame tells how large they are
        reading: deque = deque()
        pool = ThreadPoolExecutor(READERS if isinstance(self._frames, ImageFrames) else 1, "frames")
        try:
            for number in range(count):
                for later in range(number + len(reading), min(number + ahead + 1, count)):
                    reading.append(pool.submit(self._frames.__getitem__, later))
                start = time.perf_counter()
                image = reading.popleft().result()
                self.waited += time.perf_counter() - start
                if number == 0:
                    ahead = max(1, min(self._ahead, self._budget // max(1, image.nbytes)))
                yield image
        finally:
            pool.shutdown(cancel_futures=True)
