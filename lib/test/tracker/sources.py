"""Where the frames of a live run come from: a video file, a folder of pictures, a camera or a stream."""

import logging
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import cv2
import numpy as np

from ...utils.errors import UserError
from ...utils.frames import IMAGE_FOLDERS, FrameSource, ImageFrames, VideoFrames, open_frames, pictures_for
from ..evaluation.readahead import ReadAhead

logger = logging.getLogger(__name__)

DEFAULT_FPS = 25.0
"""Frames per second where the source does not say."""
PATIENCE = 10.0
"""Seconds after which a live source that gives no frame counts as gone."""
GLANCE = 0.2
"""Seconds between two calls of `stopped`, while a live source is waited for."""


class Frame(NamedTuple):
    """One frame of a source."""

    image: np.ndarray
    """(H, W, 3) RGB uint8."""
    number: int
    """Of the frame in the source, from 0; a live source's numbers have gaps where frames were dropped."""
    seconds: float
    """Since the first frame: by the clock for a live source, by a film's time stamps, by the frame rate otherwise."""


class Source(ABC):
    """Frames in order.

    Attributes:
        name: short, fit for a file name.
        fps: frames per second of the source.
        length: number of frames as far as known, or None.
        live: frames come at their own pace and without an end (a camera, a stream).
        place: what is read: the path, the address without a password, or the camera.
    """

    name: str
    fps: float
    length: int | None
    live: bool
    place: str = ""

    @abstractmethod
    def frames(self, stopped: Callable[[], bool] = lambda: False) -> Iterator[Frame]:
        """The frames that the caller has time for: all of them, or the newest of a live source.

        Args:
            stopped: whether a live source that is silent need not be waited for any longer; the frames end then. It is
                called every `GLANCE` seconds of a silence, by the thread that asked for the frame.

        Raises:
            UserError: a frame cannot be read.
        """


class RecordedSource(Source):
    """A film or a folder of pictures; threads read ahead of what is asked for.

    Args:
        frames: all of them.
        name, place, fps: see `Source`.

    Raises:
        UserError: there is no frame.
    """

    live = False

    def __init__(self, frames: FrameSource, name: str, place: str, fps: float = DEFAULT_FPS):
        self._frames, self.name, self.place, self.fps = frames, name, place, fps
        self._film = frames if isinstance(frames, VideoFrames) else None
        self.length = len(frames)
        if self.length == 0:
            raise UserError(f"no frame in {place}; is it a whole video or a folder of pictures?")

    def frames(self, stopped: Callable[[], bool] = lambda: False) -> Iterator[Frame]:
        read, moment = 0, 0.0
        try:
            with closing(self._images()) as images:
                for image in images:
                    moment = self._moment(read, moment)
                    yield Frame(image, read, moment)
                    read += 1
        except UserError:
            # Containers often state a few frames too many: that is the end of the video, not an error.
            if not (read and self._film is not None and self._film.count_exactly() == read):
                raise
        finally:
            self._frames.close()
        if read != self.length:
            logger.warning("%s states %d frames but holds %d", self.place, self.length, read)
            self.length = read

    def _images(self) -> Iterator[np.ndarray]:
        """All frames, also those of a film behind the number that it states."""
        with closing(iter(ReadAhead(self._frames))) as images:
            yield from images
        while self._film is not None and self._film.reads_on():
            yield self._film[-1]

    def _moment(self, number: int, before: float) -> float:
        """Seconds of a frame that was read since the first; a film without time stamps that rise has its frame rate."""
        if number == 0:
            return 0.0
        if self._film is not None:
            first, stamp = self._film.seconds(0), self._film.seconds(number)
            if first is not None and stamp is not None and stamp - first > before:
                return stamp - first
            return before + 1 / self.fps
        return number / self.fps


class LiveSource(Source):
    """A camera or a stream, read by a thread until the iterator is closed.

    While the caller works, the thread reads on and keeps the newest frame only: a slow tracker misses frames and never
    falls behind. Nor does it begin behind: FFmpeg gathers about a second of a stream while it opens it, so the thread
    reads from then on, and the first frame is the newest when it is asked for.

    Args:
        capture: opened, gives the frames at the source's pace; released in the end.
        name: see `Source`.
        gone: what the user should look at when the frames stop.
    """

    live = True
    length = None

    def __init__(self, capture: cv2.VideoCapture, name: str, gone: str):
        self.name = self.place = name
        self.fps = _stated_fps(capture)
        self._capture, self._gone = capture, gone
        self._reader = _NewestFrame(capture)
        self._reader.start()

    def frames(self, stopped: Callable[[], bool] = lambda: False) -> Iterator[Frame]:
        reader = self._reader
        first = None
        try:
            while True:
                grabbed = reader.take(PATIENCE, stopped)
                if grabbed is None:
                    if stopped():
                        return
                    seen = 0 if first is None else reader.count - first[1]
                    raise UserError(f"{self.name} gives no more frames after {seen}; {self._gone}")
                image, number, moment = grabbed
                first = grabbed if first is None else first
                yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), number - first[1], moment - first[2])
        finally:
            reader.stop()


class _NewestFrame(threading.Thread):
    """Reads a capture and keeps its newest frame.

    Attributes:
        count: frames read so far.
    """

    def __init__(self, capture: cv2.VideoCapture):
        super().__init__(name="newest frame", daemon=True)
        self.count = 0
        self._capture = capture
        self._changed = threading.Condition()
        self._newest: tuple[np.ndarray, int, float] | None = None
        self._ended = self._stopping = False

    def run(self) -> None:
        try:
            while not self._stopping:
                done, image = self._capture.read()
                if not done:
                    return
                with self._changed:
                    self._newest = image, self.count, time.monotonic()
                    self.count += 1
                    self._changed.notify()
        finally:
            self._capture.release()
            with self._changed:
                self._ended = True
                self._changed.notify()

    def take(self, patience: float, stopped: Callable[[], bool]) -> tuple[np.ndarray, int, float] | None:
        """The newest frame that was not taken yet, with its number and the time it came, as soon as there is one; None
        when the source ended, was silent for `patience` seconds or `stopped`, which is called without the lock, so
        that the thread reads on meanwhile."""
        until = time.monotonic() + patience
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._ended or self._newest, GLANCE):
                    newest, self._newest = self._newest, None
                    return newest
            if time.monotonic() >= until or stopped():     # what came while `stopped` took its time is looked at
                return None

    def stop(self) -> None:
        """End the thread; one that waits for a silent source ends when that gives up (it keeps no process alive)."""
        self._stopping = True
        self.join(1.0)


def open_source(text: str) -> Source:
    """A camera for a whole number, a stream or a film for an address (rtsp://..., http://...), otherwise a video file
    or a folder of pictures.

    Raises:
        UserError: there is nothing to read.
    """
    if text.isdigit() and not Path(text).exists():
        return _open_camera(int(text))
    if re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
        return _open_stream(text)
    return _open_recorded(Path(text).expanduser())


def _open_camera(number: int) -> LiveSource:
    """A camera by its number, 0 being the first."""
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise UserError(f"cannot open camera {number}; cameras are counted from 0: is it plugged in, free and allowed "
                        "for this user?")
    return LiveSource(capture, f"camera{number}", "was it unplugged?")


def _open_stream(address: str) -> Source:
    """A stream or a film by its address, through FFmpeg; what is shown and written leaves out the user's name and
    password."""
    try:
        parts = urlsplit(address)
        place = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError as error:
        raise UserError(f"the address of the stream cannot be read: {error}") from error
    capture, shown = _capture(address), f"{parts.scheme}://{place}"
    if not capture.isOpened():
        raise UserError(f"cannot open the stream {shown}; is the address right, the server reachable and running, and "
                        "its codec known to FFmpeg?")
    name = re.sub(r"[^\w.-]+", "_", place).strip("_.") or "stream"
    if capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        fps = _stated_fps(capture)
        capture.release()
        return RecordedSource(_FilmAt(address, shown), name, shown, fps)
    return LiveSource(capture, name, "the stream has ended, or the connection was lost")


def _capture(address: str) -> cv2.VideoCapture:
    """What FFmpeg reads at an address. Who waits for a live frame gives up before FFmpeg does: it would then hand out
    what its decoder holds as new frames."""
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1000 * PATIENCE), cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(2000 * PATIENCE)])


class _FilmAt(VideoFrames):
    """The frames of a film behind an address; messages call it `shown`."""

    def __init__(self, address: str, shown: str):
        super().__init__(shown)
        self._address = address

    def _open(self) -> cv2.VideoCapture:
        capture = _capture(self._address)
        if not capture.isOpened():
            raise UserError(f"{self.file} can no longer be opened; is the server still running?")
        return capture


def _open_recorded(path: Path) -> RecordedSource:
    """A video file, or a folder of pictures in natural name order (see `lib.utils.frames.open_frames`). A folder called
    img or the like has the name of the one around it."""
    frames, place = open_frames(path), path.resolve()
    if isinstance(frames, ImageFrames):
        pictures_for(frames.names, None, str(path))
    if path.is_file():
        return RecordedSource(frames, path.stem, str(place), _fps_of_file(path))
    folder = place.parent if place.name in IMAGE_FOLDERS and place.parent.name else place
    return RecordedSource(frames, folder.name, str(place))


def _stated_fps(capture: cv2.VideoCapture) -> float:
    """Frame rate that a video or camera states, when it is a plausible one."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return float(fps) if 0 < fps <= 1000 else DEFAULT_FPS


def _fps_of_file(file: Path) -> float:
    """Frame rate of a video file."""
    capture = cv2.VideoCapture(str(file))
    fps = _stated_fps(capture)
    capture.release()
    return fps
