"""Reading pictures."""

from pathlib import Path

import cv2
import numpy as np

from .errors import UserError


def decode_rgb(data: bytes, name: str) -> np.ndarray:
    """Decode an encoded picture (JPEG, PNG, BMP, ...) to RGB uint8 (H, W, 3); `name` is for the message.

    Raises:
        UserError: the bytes are no picture, or a broken one.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"cannot decode the image {name} ({len(data)} bytes): the file is damaged or no image; "
                        "copy or extract it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


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
