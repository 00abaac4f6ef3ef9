"""What drawing and video share: checked copies, fitting into a size, image files. Images are RGB uint8 (H, W, 3)."""

from pathlib import Path

import cv2
import numpy as np

from ..utils.errors import UserError
from ..utils.files import atomic_write


def copy_image(image: np.ndarray) -> np.ndarray:
    """A contiguous copy of an image.

    Raises:
        ValueError: it is not (H, W, 3) uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected an RGB uint8 image (H, W, 3), got {image.dtype} {image.shape}")
    return np.array(image, order="C")


def fit_image(image: np.ndarray, size: tuple[int, int], background: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """Scale an image to fit into `size` (W, H) with its shape kept, centred; what is left over is `background`.

    Returns a new (H, W, 3) RGB uint8 array.
    """
    width, height = size
    source_height, source_width = image.shape[:2]
    if (source_width, source_height) == (width, height):
        return copy_image(image)
    scale = min(width / source_width, height / source_height)
    inner = max(1, round(source_width * scale)), max(1, round(source_height * scale))
    resized = cv2.resize(copy_image(image), inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = background
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas[top:top + inner[1], left:left + inner[0]] = resized
    return canvas


def color_map(values: np.ndarray) -> np.ndarray:
    """Numbers (H, W) as RGB uint8 (H, W, 3): 0 is dark and 1 is bright, values outside are clipped, NaN is black."""
    levels = np.rint(255 * np.clip(np.nan_to_num(values, nan=0.0), 0, 1)).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    colors[np.isnan(values)] = 0
    return colors


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB uint8 image; the ending of `path` (.jpg, .png, ...) chooses the format. Atomic.

    Raises:
        UserError: the format is unknown or the file cannot be written.
    """
    path = Path(path)
    if not cv2.haveImageWriter(path.name):
        raise UserError(f"cannot write {path}: image format {path.suffix!r} is unknown; use .png or .jpg")
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(copy_image(image), cv2.COLOR_RGB2BGR))
    if not done:
        raise UserError(f"cannot encode {path} as {path.suffix}; use .png or .jpg")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.tobytes())
