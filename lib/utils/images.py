"""Reading pictures: their pixels and, from the header where that is enough, their size.

A picture is what OpenCV makes of its content, whatever the file's name ends in: shown as its Exif data say, in three
channels, without transparency. Every reader of the project gives these pixels and this size.
"""

import logging
import multiprocessing
import re
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from .errors import UserError

logger = logging.getLogger(__name__)

HEADER_BYTES = 1 << 16
"""Bytes of a picture in which its size is looked for first."""
NARROW = 0.25
"""Part of the 16-bit range below which pictures lose too much when they are cut to 8 bits."""

_BMP_HEADER = 40
"""Bytes of a BMP file's second header, from its length on, in which sizes have 32 bits; OS/2's has 12, and 16 bits."""
_PNG = b"\x89PNG\r\n\x1a\n"
_END_WITHIN = 1024
"""Bytes at a file's end in which a whole file has its end mark (some cameras write zeros behind it)."""
_PIXELS_FOLLOW = 0xDA
"""Kind of the last segment of a JPEG file's header."""
_ORIENTATION = re.compile(rb"\x01\x12\x00[\x01-\x0c]|\x12\x01[\x01-\x0c]\x00")
"""Tag 0x0112 with a type, in either byte order."""
_ENOUGH = 200_000
"""Pixels that tell the range of a picture."""
_FRAME_KINDS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Kinds of the segment that has a JPEG file's bits and size."""
_loss_named = threading.Event()
"""Set once this process has warned of `depth_loss`."""


def decode_rgb(data: bytes, name: str) -> np.ndarray:
    """Decode an encoded picture (JPEG, PNG, BMP, ...) to RGB uint8 (H, W, 3); `name` is for the message.

    Of 16 bits the upper 8 are kept, as OpenCV does; a warning, once per process, says where that loses much.

    Raises:
        UserError: the bytes are no picture, or a broken one, or its pixels are no whole numbers of 8 or 16 bits.
    """
    image = decode_any_depth(data, name)
    if image.dtype == np.uint16:
        if not _loss_named.is_set() and multiprocessing.parent_process() is None:
            warn_of_loss(name, depth_loss(image))
        image = (image >> 8).astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def warn_of_loss(name: str, loss: str) -> None:
    """Warn, once per process, of what `depth_loss` says of a picture."""
    if loss and not _loss_named.is_set():
        _loss_named.set()
        logger.warning("%s: %s", name, loss)


def decode_any_depth(data: bytes, name: str) -> np.ndarray:
    """As :func:`decode_rgb`, but BGR (H, W, 3), and uint16 where the file has 16 bits."""
    try:
        image = (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data else None)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"cannot decode the image {name} ({len(data)} bytes): {_why_undecodable(data)}")
    if image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"the image {name} has {image.dtype} pixels; write it with 8 bits, scaled by the same rule in "
                        "all frames")
    return image


def _why_undecodable(data: bytes) -> str:
    """What OpenCV cannot decode, and what to do."""
    if data.startswith(b"version https://git-lfs"):
        return "it only stands for a file of Git LFS; fetch that with `git lfs pull`"
    if data[4:8] == b"ftyp":
        return f"{data[8:12].decode('ascii', 'replace').strip()} pictures are not read; convert it to JPEG or PNG"
    bits = next((data[start] for kind, start, _ in _segments(data) if kind in _FRAME_KINDS and start < len(data)), 8
                ) if data.startswith(b"\xff\xd8") else 8
    if bits != 8:
        return f"JPEG files of {bits} bits are not read; write it with 8 bits, scaled by the same rule in all frames"
    return "the file is damaged or no image; copy or extract it again"


def depth_loss(image: np.ndarray) -> str:
    """What a picture loses when its 16 bits are cut to 8, as a sentence; '' for 8 bits, and where that is little."""
    if image.dtype != np.uint16:
        return ""
    step = 1 + image.shape[0] * image.shape[1] // _ENOUGH
    low, high = (int(v) for v in np.percentile(image.reshape(-1, 3)[::step], (1, 99)))
    used = (high - low) / 65535
    if used >= NARROW or not (image & 255).any() or np.array_equal(image & 255, image >> 8):
        return ""  # the last two: 8 bits that were written as 16
    return (f"16-bit pictures are cut to 8 bits, and this one uses {100 * used:.2g} % of the range (most pixels are "
            f"in {low}..{high}), which leaves {(high >> 8) - (low >> 8) + 1} grey levels; write the pictures with 8 "
            "bits, scaled by the same rule in all frames")


class Look(NamedTuple):
    """What is known of a picture without keeping its pixels."""

    size: tuple[int, int]
    """Width and height, as `decode_rgb` gives it."""
    loss: str = ""
    """See `depth_loss`."""
    damaged: bool = False
    """It can be decoded, but with parts that the decoder makes up; known only where it was decoded."""


def look_at(read: Callable[[int | None], bytes], name: str, decode: bool = False) -> Look:
    """Look at a picture; mostly its header, in the first 64 KiB, is enough.

    Args:
        read: gives the first bytes of the file, or with None all.
        name: for messages.
        decode: decode it in any case.

    Raises:
        UserError: it cannot be read or decoded.
    """
    data = read(None if decode else HEADER_BYTES)
    size = None if decode else header_size(data)
    if size is None and not decode and len(data) == HEADER_BYTES:
        data = read(None)
        size = header_size(data)
    if size is not None:
        return Look(size)
    image = decode_any_depth(data, name)
    return Look(image.shape[1::-1], depth_loss(image), _is_damaged_jpeg(data))


def header_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the beginning of a picture file; None where only decoding it tells."""
    try:
        if data.startswith(_PNG):
            width, height, depth = struct.unpack_from(">IIB", data, 16)
            may_be_turned = b"eXIf" in data or b"IEND" not in data[-_END_WITHIN:]  # Exif data may stand at the end
            return None if depth > 8 or may_be_turned else (width, height)
        if data.startswith(b"BM"):
            header, width, height = struct.unpack_from("<Iii", data, 14)
            return None if header < _BMP_HEADER else (width, abs(height))
    except struct.error:
        return None
    return jpeg_size(data)


def has_jpeg_end(data: bytes) -> bool:
    """Whether a JPEG file is there to its end."""
    return data.rfind(b"\xff\xd9", max(0, len(data) - _END_WITHIN)) >= 0


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the beginning of a JPEG file whose pixels every decoder sees alike.

    None for what is no JPEG file, one in CMYK, and one that is to be shown turned (which OpenCV does and others do
    not).
    """
    size = _plain_jpeg_size(data)
    return None if size is None or _may_be_turned(data) else size


def _is_damaged_jpeg(data: bytes) -> bool:
    """Whether a file is a JPEG file that can be decoded, but with parts that the decoder makes up."""
    if _plain_jpeg_size(data) is None:
        return False
    try:
        simplejpeg.decode_jpeg(data, strict=True)
    except ValueError:
        return True
    return False


def _plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as they are stored in a JPEG file that is not in CMYK."""
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return (width, height) if colors in ("YCbCr", "Gray", "RGB") else None


def _may_be_turned(data: bytes) -> bool:
    """Whether an Exif segment of a JPEG file says how the picture is to be turned, or its header is a strange one."""
    return any(kind is None or (data.startswith(b"Exif\0\0", start) and _ORIENTATION.search(data, start, end))
               for kind, start, end in _segments(data))


def _segments(data: bytes) -> Iterator[tuple[int | None, int, int]]:
    """Kind, start and end of the content of each segment before the pixels of a JPEG file; kind None, and no more,
    where something else stands."""
    start = 2
    while start + 4 <= len(data):
        kind, end = data[start + 1], start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if data[start] != 0xFF or kind == 0xFF:
            yield None, start, start
        if data[start] != 0xFF or kind in (0xFF, _PIXELS_FOLLOW):
            return
        yield kind, start + 4, end
        start = end


def read_file(path: str | Path) -> bytes:
    """The content of a picture file.

    Raises:
        UserError: the file is missing or unreadable.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror or error}") from error


def read_rgb(path: str | Path) -> np.ndarray:
    """Read one picture file as RGB uint8 (H, W, 3).

    Raises:
        UserError: the file is missing, unreadable or damaged.
    """
    return decode_rgb(read_file(path), str(path))
