"""Write videos that appear whole or not at all."""

import logging
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from ..utils.errors import UserError
from ..utils.files import atomic_write
from .images import fit_image

logger = logging.getLogger(__name__)

_CODECS = (("mp4v", ".mp4"), ("MJPG", ".avi"))


class VideoWriter:
    """A context manager that encodes RGB frames; the file gets its name when the block ends without an exception.

    MPEG-4 in an .mp4 file; where OpenCV has no encoder for that, Motion JPEG in an .avi file beside (with a warning).
    An ending .avi asks for Motion JPEG at once. Frames of another size are fitted, with black borders.

    Args:
        path: the video file, ending .mp4 or .avi.
        fps: frames per second of the video, positive; above 65 rounded to a whole number.
        size: (W, H) of the video in pixels; odd sides lose one pixel, as the encoders want.

    Attributes:
        path: where the video will be, with the ending that was really used (known inside the block).
        frames: number of frames written so far.

    Raises:
        UserError: another ending, no encoder works, the folder cannot be written, or (at the end) no frame was given.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int]):
        self.path = Path(path)
        self.frames = 0
        # MPEG-4 holds rates in thousandths only up to 65.535 frames per second.
        self._fps = float(fps) if fps <= 65 else float(round(fps))
        self._size = size[0] // 2 * 2, size[1] // 2 * 2
        self._stack = ExitStack()
        if self.path.suffix.lower() not in {ending for _, ending in _CODECS}:
            raise UserError(f"cannot write the video {path}: its name must end in .mp4 or .avi")
        if not self._fps > 0 or min(self._size) < 2:
            raise UserError(f"cannot write the video {path}: {fps} frames per second of {size[0]}x{size[1]} pixels")

    def __enter__(self) -> "VideoWriter":
        codec, ending = self._choose_codec()
        self.path = self.path.with_suffix(ending)
        with ExitStack() as stack:
            self._target = stack.enter_context(atomic_write(self.path))
            # OpenCV chooses the container by the ending, so it encodes beside the temporary file.
            self._part = self._target.with_name(self._target.name + ending)
            stack.callback(self._part.unlink, missing_ok=True)
            self._encoder = _encoder(self._part, codec, self._fps, self._size)
            stack.callback(self._encoder.release)
            self._stack = stack.pop_all()
        return self

    def _choose_codec(self) -> tuple[str, str]:
        """The first codec, with its ending, that this OpenCV can encode."""
        suffix = self.path.suffix.lower()
        choices = [codec for codec in _CODECS if suffix != ".avi" or codec[1] == ".avi"]
        with tempfile.TemporaryDirectory() as folder:
            for codec, ending in choices:
                encoder = _encoder(Path(folder) / f"probe{ending}", codec, self._fps, self._size)
                works = encoder.isOpened()
                encoder.release()
                if works:
                    if ending != suffix:
                        logger.warning("OpenCV has no MPEG-4 encoder here; writing %s", self.path.with_suffix(ending))
                    return codec, ending
        raise UserError(f"cannot write the video {self.path}: this OpenCV ({cv2.__version__}) has no encoder for it; "
                        "install opencv-python or opencv-python-headless from PyPI")

    def write(self, image: np.ndarray, times: int = 1) -> None:
        """Append one (H, W, 3) RGB uint8 frame, `times` in a row."""
        frame = cv2.cvtColor(fit_image(image, self._size), cv2.COLOR_RGB2BGR)
        for _ in range(times):
            self._encoder.write(frame)
            self.frames += 1

    def __exit__(self, kind, error, trace) -> bool | None:
        self._encoder.release()
        if kind is not None:
            return self._stack.__exit__(kind, error, trace)
        with self._stack:
            self._check()
            os.replace(self._part, self._target)
        return None

    def _check(self) -> None:
        """Encoders do not report a full disk: read the file's own count of frames."""
        capture = cv2.VideoCapture(str(self._part))
        frame_count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if self.frames == 0 or frame_count < self.frames:
            raise UserError(f"the video {self.path} was not written: it would hold {frame_count} of {self.frames} "
                            "frames; check that there are frames and that the disk is not full")


def _encoder(path: Path, codec: str, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """OpenCV's encoder towards `path`; `isOpened()` tells whether it works."""
    return cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size)
