"""Maps of a network over the crops they belong to, beside the frame. Images are RGB uint8 (H, W, 3)."""

from collections.abc import Sequence

import cv2
import numpy as np

from .draw import image_strip
from .images import color_map, copy_image, fit_image


def blend_map(image: np.ndarray, values: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Lay a map over the image that it belongs to.

    Args:
        image: (H, W, 3) RGB uint8; not changed.
        values: (S, S) numbers, 0 dark and 1 bright; stretched over the whole image, one cell an even patch. NaN, cells
            that are not there, is black.
        opacity: 0 shows the image alone, 1 the map alone.

    Returns:
        (H, W, 3) RGB uint8.
    """
    height, width = image.shape[:2]
    heat = cv2.resize(color_map(values), (width, height), interpolation=cv2.INTER_NEAREST)
    return cv2.addWeighted(copy_image(image), 1 - opacity, heat, opacity, 0)


def with_panels(image: np.ndarray, panels: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Put square pictures in a column at the right of a frame, of the frame's height together.

    Args:
        image: (H, W, 3).
        panels: (caption, (n, n, 3) picture) from top to bottom; none leaves the frame as it is.

    Returns:
        (H, W + H // number of panels, 3).
    """
    if not panels:
        return image
    height = image.shape[0]
    side = max(1, height // len(panels))
    captions, pictures = zip(*panels, strict=True)
    column = image_strip(pictures, 1, cell_width=side, captions=captions, gap=0)
    return np.concatenate([image, fit_image(column, (side, height))], axis=1)
