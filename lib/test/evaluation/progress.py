"""Progress over frames and sequences: a bar on a terminal, a plain line now and then elsewhere."""

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

from ...utils.progress import LINE_EVERY, clock

logger = logging.getLogger(__name__)


class Progress:
    """Counts frames and sequences; shows frames per second and the time left.

    Args:
        sequences, frames: how many there are.
        bar: draw a bar; None does so when standard error is a terminal.
    """

    def __init__(self, sequences: int, frames: int, bar: bool | None = None):
        self.sequences, self.frames = sequences, frames
        self.sequences_done = self.frames_done = 0
        self._start = self._last_line = time.monotonic()
        self._first = (0.0, 0)  # when the first frames were done, and how many
        use_bar = sys.stderr.isatty() if bar is None else bar
        self._bar = tqdm(total=frames, unit=" frames", smoothing=0.05, dynamic_ncols=True) if use_bar else None
        self._show_sequences()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._bar is not None:
            self._bar.close()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def advance(self, frames: int) -> None:
        """`frames` more frames are tracked."""
        self.frames_done += frames
        if self.frames_done == frames:
            self._first = time.monotonic(), frames
        if self._bar is not None:
            self._bar.update(frames)
        elif time.monotonic() - self._last_line >= LINE_EVERY:
            self._line()

    def finish_sequence(self, lost: int = 0) -> None:
        """One more sequence is done, well or not; `lost` of its frames will not be tracked."""
        self.sequences_done += 1
        self.frames -= lost
        if self._bar is not None:
            self._bar.total = self.frames
        self._show_sequences()
        if self._bar is None and self.sequences_done == self.sequences:
            self._line()

    def _show_sequences(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.sequences_done}/{self.sequences} sequences")

    def _line(self) -> None:
        self._last_line = time.monotonic()
        speed = ""
        begin, before = self._first
        if self.frames_done > before:  # the start of the processes, which takes seconds, does not count
            rate = (self.frames_done - before) / max(self._last_line - begin, 1e-9)
            speed = f", {rate:.1f} frames/s, {clock((self.frames - self.frames_done) / rate)} left"
        logger.info("%d/%d sequences, %d/%d frames%s", self.sequences_done, self.sequences, self.frames_done,
                    self.frames, speed)
