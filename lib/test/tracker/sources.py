"""Where the frames of a live run come from: a video file, a folder of pictures or a camera."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from lib.utils.errors import UserError
from lib.utils.sequences import VideoFrames, open_frames

logger = logging.getLogger(__name__)

DEFAULT_FPS = 25.0
"""Frames per second where the source does not say."""


class Source(ABC):
    """Frames in order.

    Attributes:
        name: short, fit for a file name.
        fps: frames per second of the source.
        length: number of frames as far as known, or None.
        live: frames come at their own pace and without an end (a camera).
    """

    name: str
    fps: float
    length: int | None
    live: bool

    @abstractmethod
    def __iter__(self) -> Iterator[np.ndarray]:
        """RGB uint8 (H, W, 3) frames.

        Raises:
            UserError: a frame cannot be read.
        """


class RecordedSource(Source):
    """A video file, or a folder of pictures in natural name order (see `lib.utils.sequences.open_frames`)."""

    live = False

    def __init__(self, path: str | Path):
        path = Path(path).expanduser()
        self._frames = open_frames(path)
        self.length = len(self._frames)
        self.name = path.stem if path.is_file() else path.resolve().name
        self.fps = _stated_fps(cv2.VideoCapture(self._frames.file)) if isinstance(self._frames, VideoFrames) \
            else DEFAULT_FPS
        if self.length == 0:
            raise UserError(f"no frame in {path}; is it a whole video or a folder of pictures?")

    def __iter__(self) -> Iterator[np.ndarray]:
        index = 0
        try:
            while index < self.length:
                yield self._read(index)
                index += 1
        except _EndOfVideo:
            logger.warning("%s states %d frames but holds %d", self._frames.path(0), self.length, index)
            self.length = index
        finally:
            self._frames.close()

    def _read(self, index: int) -> np.ndarray:
        """One frame. Containers often state a few frames too many: that is the end of the video, not an error."""
        try:
            return self._frames[index]
        except UserError:
            if index and isinstance(self._frames, VideoFrames) and self._frames.count_exactly() == index:
                raise _EndOfVideo from None
            raise


class _EndOfVideo(Exception):
    """A video file ended before the number of frames it states."""


class CameraSource(Source):
    """A camera by its number, 0 being the first; open until the iterator is closed."""

    live = True
    length = None

    def __init__(self, number: int):
        self.name = f"camera{number}"
        self._number = number
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise UserError(f"cannot open camera {number}; cameras are counted from 0: is it plugged in, free and "
                            "allowed for this user?")
        self.fps = _stated_fps(self._capture, keep_open=True)

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            while True:
                done, image = self._capture.read()
                if not done:
                    raise UserError(f"camera {self._number} gives no more frames; was it unplugged?")
                yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        finally:
            self._capture.release()


def open_source(text: str) -> Source:
    """A camera for a whole number, otherwise a video file or a folder of pictures.

    Raises:
        UserError: there is nothing to read.
    """
    if text.isdigit() and not Path(text).exists():
        return CameraSource(int(text))
    return RecordedSource(text)


def _stated_fps(capture: cv2.VideoCapture, keep_open: bool = False) -> float:
    """Frame rate that a video or camera states, when it is a plausible one."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    if not keep_open:
        capture.release()
    return float(fps) if 1 <= fps <= 1000 else DEFAULT_FPS
