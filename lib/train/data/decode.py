"""Encoded frames: their size at once, and of their pixels only those that are asked for.

Decoding is what a training pair costs most. A JPEG file's header gives its size, which is all that the geometry of a
pair needs; then only the part under the crop is decoded. libjpeg-turbo can do that (its `tj3SetCroppingRegion`): it
leaves out the transforms of what lies beside the part, and stops behind its last row. The Python interfaces of the
wheels do not offer it, so it is called by ctypes in the libturbojpeg that the wheel `turbojpeg` brings, or in that of
the system. Where there is none, simplejpeg decodes the whole file.

The pixels are those of OpenCV's decoder: what the fast decoders do otherwise (CMYK, turned pictures, damaged files,
what is no JPEG file) goes to OpenCV.
"""

import contextlib
import ctypes
import ctypes.util
import logging
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np
import simplejpeg

from ...utils.images import decode_rgb, has_jpeg_end, jpeg_size

logger = logging.getLogger(__name__)

SHRINKS = (8, 4, 2)
"""Scales 1/n at which a JPEG file can be decoded cheaper than at its own."""

_ALIGN = 32
"""Columns: a multiple of every chroma subsampling's block, at which a decoded part may begin."""
_MARGIN = 8
"""Columns decoded beside a part and thrown away: smooth chroma upsampling looks beyond the border."""


class Picture(ABC):
    """An RGB picture.

    Attributes:
        name: for messages.
        width, height: in pixels.
    """

    name: str
    width: int
    height: int

    @abstractmethod
    def region(self, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        """The pixels of columns `left` to `right` and rows `top` to `bottom` (the last ones not included).

        Returns:
            (bottom - top, right - left, 3) uint8, not to be changed.

        Raises:
            UserError: the file is damaged.
        """

    def shrunk(self, factor: int) -> "Picture | None":
        """The same picture decoded at 1/`factor` of its size, one of `SHRINKS`; None where that saves nothing."""
        return None


class DecodedPicture(Picture):
    """A picture whose pixels are there."""

    def __init__(self, image: np.ndarray, name: str):
        self.image, self.name = image, name
        self.height, self.width = image.shape[:2]

    def region(self, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        return self.image[top:bottom, left:right]


class JpegPicture(Picture):
    """A JPEG file whose header is read.

    Args:
        data: the file's content.
        name: for messages.
        size: width and height at full scale.
        library: decodes parts; None decodes the whole file with simplejpeg.
        factor: the picture is the file's at 1/`factor`.
    """

    def __init__(self, data: bytes, name: str, size: tuple[int, int], library: "TurboJpeg | None", factor: int = 1):
        self.data, self.name, self._size, self._library, self._factor = data, name, size, library, factor
        self.width, self.height = (-(-length // factor) for length in size)

    def region(self, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        if self._library is not None and left < right and top < bottom:
            part = self._library.region(self.data, (self.width, self.height), (left, top, right, bottom), self._factor)
            if part is not None:
                return part
        return self._whole()[top:bottom, left:right]

    def _whole(self) -> np.ndarray:
        try:
            return simplejpeg.decode_jpeg(self.data, min_width=self.width, min_height=self.height)
        except ValueError:  # damaged; OpenCV decides what can still be seen, as it does for other readers
            return decode_rgb(self.data, self.name)[::self._factor, ::self._factor]

    def shrunk(self, factor: int) -> "JpegPicture":
        return JpegPicture(self.data, self.name, self._size, self._library, factor)


def open_picture(data: bytes, name: str, decoder: str = "auto") -> Picture:
    """A picture of a file's content.

    Args:
        data: the content of a JPEG, PNG, BMP, ... file.
        name: for messages.
        decoder: auto (JPEG files: the part that is asked for with libturbojpeg where there is one, else all with
            simplejpeg), simplejpeg (always all) or opencv. The pixels are the same.

    Raises:
        UserError: the content is no picture, or a damaged one as far as that is noticed without decoding it (the
            header cannot be read, or the end is missing).
    """
    size = jpeg_size(data) if decoder != "opencv" and has_jpeg_end(data) else None
    if size is None:
        return DecodedPicture(decode_rgb(data, name), name)
    return JpegPicture(data, name, size, find_turbojpeg() if decoder == "auto" else None)


class _Region(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("x", "y", "w", "h")]


class _Scale(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("num", "denom")]


class TurboJpeg:
    """The decoder of a libturbojpeg of version 3 or newer. One for all threads: each has its own handle.

    Args:
        path: of the shared library.

    Raises:
        OSError: it cannot be loaded, or is too old.
    """

    _DECOMPRESS, _STOP_ON_WARNING, _RGB = 1, 0, 0  # of turbojpeg.h: TJINIT_, TJPARAM_, TJPF_

    def __init__(self, path: str):
        self.path = path
        self._library = ctypes.CDLL(path)
        handle, data, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        try:
            for name, result, *arguments in (
                ("tj3Init", handle, number),
                ("tj3Destroy", None, handle),
                ("tj3Set", number, handle, number, number),
                ("tj3DecompressHeader", number, handle, data, ctypes.c_size_t),
                ("tj3SetScalingFactor", number, handle, _Scale),
                ("tj3SetCroppingRegion", number, handle, _Region),
                ("tj3Decompress8", number, handle, data, ctypes.c_size_t, ctypes.c_void_p, number, number),
            ):
                function = getattr(self._library, name)
                function.restype, function.argtypes = result, arguments
        except AttributeError as error:
            raise OSError(f"{path} is older than version 3: {error}") from error
        self._local = threading.local()

    def region(self, data: bytes, size: tuple[int, int], part: tuple[int, int, int, int], factor: int = 1
               ) -> np.ndarray | None:
        """A part of a JPEG file at 1/`factor`.

        Args:
            size: width and height of the picture at that scale.
            part: left, top, right, bottom at that scale, within the picture and not empty.

        Returns:
            (bottom - top, right - left, 3) uint8; None where the library refuses the file or finds a fault in it.
        """
        left, top, right, bottom = part
        first = max(0, left - _MARGIN) // _ALIGN * _ALIGN
        last = min(size[0], right + _MARGIN)
        out = np.empty((bottom - top, last - first, 3), np.uint8)
        library, handle = self._library, self._handle().pointer
        refused = (library.tj3DecompressHeader(handle, data, len(data))
                   or library.tj3SetScalingFactor(handle, _Scale(1, factor))
                   or library.tj3SetCroppingRegion(handle, _Region(first, top, last - first, bottom - top))
                   or library.tj3Decompress8(handle, data, len(data), out.ctypes.data, 0, self._RGB))
        return None if refused else out[:, left - first : right - first]

    def _handle(self) -> "_Handle":
        handle = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = _Handle(self._library, self._DECOMPRESS)
            self._library.tj3Set(handle.pointer, self._STOP_ON_WARNING, 1)
        return handle


class _Handle:
    """A decoder of the library, freed with the thread that it belongs to."""

    def __init__(self, library: ctypes.CDLL, kind: int):
        self._library = library
        self.pointer = library.tj3Init(kind)
        if self.pointer is None:
            raise MemoryError("libturbojpeg could not make a decoder")

    def __del__(self) -> None:
        if self.pointer is not None:
            self._library.tj3Destroy(self.pointer)


@lru_cache(maxsize=1)
def find_turbojpeg() -> TurboJpeg | None:
    """The libturbojpeg of the wheel `turbojpeg`, of the environment or of the system that decodes parts of a test
    picture with the same pixels as simplejpeg; None where there is none. Looked for once per process."""
    for path in _libraries():
        with contextlib.suppress(OSError):
            library = TurboJpeg(path)
            if _decodes_parts_right(library):
                return library
            logger.warning("%s decodes parts of a JPEG file with other pixels than simplejpeg and is not used", path)
    return None


def _libraries() -> Iterator[str]:
    with contextlib.suppress(metadata.PackageNotFoundError):
        yield from (str(file.locate()) for file in metadata.files("turbojpeg") or () if "libturbojpeg" in file.name)
    yield from map(str, sorted(Path(sys.prefix, "lib").glob("libturbojpeg.so*")))
    name = ctypes.util.find_library("turbojpeg")
    if name is not None:
        yield name


def _decodes_parts_right(library: TurboJpeg) -> bool:
    y, x = np.mgrid[0:90, 0:130]
    image = np.stack([x * y % 251, x * 3 % 256, (x + y * y) % 256], axis=2).astype(np.uint8)
    for subsampling in ("420", "422", "444"):
        data = simplejpeg.encode_jpeg(image, quality=90, colorsubsampling=subsampling)
        whole = simplejpeg.decode_jpeg(data)
        for left, top, right, bottom in ((0, 0, 130, 90), (41, 13, 97, 50), (75, 33, 130, 90)):
            part = library.region(data, (130, 90), (left, top, right, bottom))
            if part is None or not np.array_equal(part, whole[top:bottom, left:right]):
                return False
    return True
