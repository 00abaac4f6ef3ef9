"""Square crops around a box, and boxes in and out of them: one implementation for training and testing.

The geometry is OSTrack's (lib/train/data/processing_utils.py and lib/test/tracker/ostrack.py of its repository): the
crop is a square of ``ceil(sqrt(w * h) * factor)`` source pixels around the box's centre, placed on whole pixels, zero
outside the image, resized bilinearly. The last row and the last column of an image count as outside, as they do there.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from .errors import UserError

Box = Sequence[float] | np.ndarray
"""[x, y, w, h] of one box."""


class Crop(NamedTuple):
    """A square piece of an image."""

    image: np.ndarray
    """(size, size, 3) uint8."""
    scale: float
    """Output pixels per source pixel."""
    padding: tuple[int, int, int, int]
    """Source pixels of the square that lie outside the image: left, top, right, bottom."""

    @property
    def side(self) -> int:
        """Side of the square in source pixels."""
        return round(self.image.shape[0] / self.scale)


def crop_side(box_xywh: Box, factor: float) -> int:
    """Side in source pixels of the square around `box_xywh`; 0 when the box has no area or is not finite."""
    area = float(box_xywh[2]) * float(box_xywh[3])
    if not (box_xywh[2] > 0 and box_xywh[3] > 0 and math.isfinite(area)):
        return 0
    return math.ceil(math.sqrt(area) * factor)


class Square(NamedTuple):
    """The square around a box, on whole pixels of an image, and how far it reaches over the image."""

    left: int
    top: int
    side: int
    padding: tuple[int, int, int, int]
    """Pixels of the square that lie outside the image: left, top, right, bottom."""

    @property
    def inside(self) -> tuple[int, int, int, int]:
        """The part of the square within the image: left, top, and the first column and row behind it."""
        left, top, right, bottom = self.padding
        return (self.left + left, self.top + top, self.left + self.side - right, self.top + self.side - bottom)

    @property
    def is_padding(self) -> bool:
        """Whether nothing of the square lies within the image."""
        left, top, right, bottom = self.padding
        return left + right >= self.side or top + bottom >= self.side

    def mirrored(self, width: int) -> "Square":
        """The same square where it lies in the image, `width` wide, turned left-right."""
        left, top, right, bottom = self.padding
        return Square(width - self.left - self.side, self.top, self.side, (right, top, left, bottom))


def square_around(box_xywh: Box, factor: float, width: int, height: int) -> Square:
    """The square around a box in an image of `width` x `height` pixels.

    Args:
        box_xywh: box in pixels, the square's centre.
        factor: side of the square in units of the box's mean side sqrt(w * h).

    Raises:
        UserError: the box has no area, or a position that is not a number.
    """
    x, y, w, h = (float(v) for v in box_xywh)
    side = crop_side((x, y, w, h), factor)
    if side < 1 or not (math.isfinite(x) and math.isfinite(y)):
        raise UserError(f"cannot crop around the box x={x:g}, y={y:g}, w={w:g}, h={h:g}: width and height must be "
                        "positive numbers of pixels")
    left, top = round(x + 0.5 * w - 0.5 * side), round(y + 0.5 * h - 0.5 * side)
    pad_left, pad_right = _overhang(left, side, width)
    pad_top, pad_bottom = _overhang(top, side, height)
    return Square(left, top, side, (pad_left, pad_top, pad_right, pad_bottom))


def resize_square(
    inside: np.ndarray, square: Square, size: int, *, mirror: bool = False, gray: bool = False
) -> np.ndarray:
    """The crop of a square from the pixels of its part within the image.

    Args:
        inside: uint8 (h, w, 3), the pixels of ``square.inside``; they are not changed.
        square: where they lie.
        size: side of the result in pixels.
        mirror: turn the square left-right before it is resized.
        gray: turn it to grey (three equal channels) before it is resized.

    Returns:
        (size, size, 3) uint8.
    """
    if inside.size == 0:
        return np.zeros((size, size, 3), np.uint8)
    left, top, right, bottom = square.padding
    if gray:
        inside = cv2.cvtColor(inside, cv2.COLOR_RGB2GRAY)
    if mirror:
        inside, left, right = cv2.flip(inside, 1), right, left
    if any(square.padding):
        inside = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_CONSTANT)
    out = cv2.resize(inside, (size, size))
    return cv2.merge([out, out, out]) if gray else out


def cut_square(image: np.ndarray, square: Square, size: int, *, mirror: bool = False, gray: bool = False) -> np.ndarray:
    """The crop of a square of `image`, (H, W, 3) uint8; the rest as in :func:`resize_square`."""
    left, top, right, bottom = square.inside
    return resize_square(image[top:bottom, left:right], square, size, mirror=mirror, gray=gray)


def sample_square(
    pixels: np.ndarray, place: tuple[float, float, float, float], square: Square, size: int, *, mirror: bool = False,
    gray: bool = False,
) -> np.ndarray:
    """The crop of a square from a picture in which the image has another scale.

    Differs from :func:`resize_square` by what the other scale does to the pixels, and where padding begins: at the
    border of `pixels`, not one pixel before it.

    Args:
        pixels: uint8 (h, w, 3).
        place: left, top, width, height of `pixels` in the image's own pixels.
        square: in the image's own pixels.
        size, mirror, gray: as there.

    Returns:
        (size, size, 3) uint8.
    """
    left, top, width, height = place
    scale_x, scale_y = pixels.shape[1] / width, pixels.shape[0] / height
    step = square.side / size  # of the result's pixels in the image
    to_pixels = np.array([[step * scale_x, 0, (square.left - left + 0.5 * step) * scale_x - 0.5],
                          [0, step * scale_y, (square.top - top + 0.5 * step) * scale_y - 0.5]])
    if gray:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    out = cv2.warpAffine(pixels, to_pixels, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    if mirror:
        out = cv2.flip(out, 1)
    return cv2.merge([out, out, out]) if gray else out


def square_crop(
    image: np.ndarray, box_xywh: Box, factor: float, size: int, *, mirror: bool = False, gray: bool = False
) -> Crop:
    """Cut the square around a box and resize it to `size`.

    Args:
        image: (H, W, 3) uint8. Only the part inside the square is touched; nothing of the frame is copied.
        box_xywh: box in pixels, the square's centre.
        factor: side of the square in units of the box's mean side sqrt(w * h).
        size: side of the result in pixels.
        mirror: the same result as flipping the whole image left-right first; the box is then given in the flipped
            image's pixels.
        gray: the same result as turning the whole image to grey (three equal channels) first.

    Raises:
        UserError: the box has no area, or a position that is not a number.
    """
    height, width = image.shape[:2]
    square = square_around(box_xywh, factor, width, height)
    place = square.mirrored(width) if mirror else square
    return Crop(cut_square(image, place, size, mirror=mirror, gray=gray), size / square.side, square.padding)


def _overhang(start: int, side: int, length: int) -> tuple[int, int]:
    """How many of the `side` pixels from `start` lie before 0 and how many lie behind an image `length` long."""
    before = min(side, max(0, -start))
    after = min(side - before, max(0, start + side - (length - 1)))
    return before, after


def padding_mask(crop: Crop) -> np.ndarray:
    """(size, size) bool: True where padding contributes to the pixel (OSTrack's attention mask)."""
    left, top, right, bottom = crop.padding
    size = crop.image.shape[0]
    columns = _padded_positions(left, right, crop.side, size)
    rows = _padded_positions(top, bottom, crop.side, size)
    return rows[:, None] | columns[None, :]


def has_content(square: Square, size: int, stride: int) -> bool:
    """Whether some feature cell of the square's crop, sampled at its first pixel every `stride` of `size` pixels, is
    free of padding.

    OSTrack throws a training sample away when its nearest-neighbour reduced attention mask is all padding.
    """
    if not any(square.padding):
        return True
    left, top, right, bottom = square.padding
    return bool(
        not _padded_positions(left, right, square.side, size)[::stride].all()
        and not _padded_positions(top, bottom, square.side, size)[::stride].all()
    )


def _padded_positions(before: int, after: int, side: int, size: int) -> np.ndarray:
    """(size,) bool along one axis: True where bilinear resizing from `side` to `size` reads a padded pixel."""
    source = ((np.arange(size) + 0.5) * (side / size) - 0.5).astype(np.float32).clip(0, side - 1)
    low, high = np.floor(source), np.ceil(source)
    return (low < before) | (high >= side - after)


def box_to_crop(box_xywh: Box, anchor_xywh: Box, scale: float, size: int, last_pixel: bool = False) -> np.ndarray:
    """Where a box of the image lies in the crop around `anchor_xywh`.

    Args:
        box_xywh, anchor_xywh: pixels of the image.
        scale: the crop's output pixels per source pixel.
        size: side of the crop in pixels.
        last_pixel: divide by the distance of the first and the last pixel, size - 1 (SeqTrack, SUTrack).

    Returns:
        (4,) xywh divided by `size`. OSTrack's training rule: the anchor's centre is the crop's pixel (size - 1) / 2.
    """
    box, anchor = np.asarray(box_xywh, np.float64), np.asarray(anchor_xywh, np.float64)
    offset = box[:2] + 0.5 * box[2:] - anchor[:2] - 0.5 * anchor[2:]
    wh = box[2:] * scale
    return np.concatenate([0.5 * (size - 1) + offset * scale - 0.5 * wh, wh]) / (size - last_pixel)


def box_from_crop(box_cxcywh: Box, anchor_xywh: Box, scale: float, size: int) -> list[float]:
    """The box of the image that a normalised box of the crop around `anchor_xywh` means.

    OSTrack's run-time rule: the anchor's centre is the crop's position size / 2 (half a pixel from the training rule
    of :func:`box_to_crop`, as in its repository).

    Returns:
        [x, y, w, h] in pixels of the image.
    """
    cx, cy, w, h = (float(v) * size / scale for v in box_cxcywh)
    half = 0.5 * size / scale
    x, y, anchor_w, anchor_h = (float(v) for v in anchor_xywh)
    cx += x + 0.5 * anchor_w - half
    cy += y + 0.5 * anchor_h - half
    return [cx - 0.5 * w, cy - 0.5 * h, w, h]


class Normaliser:
    """Makes numbers of crops: brightness, minus a mean, over a standard deviation.

    Args:
        mean, std: of red, green, blue, for values in 0..1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self._constants = torch.tensor([list(mean), list(std)], dtype=torch.float32).view(2, 1, 3, 1, 1)

    def __call__(self, crops: Tensor, gains: Tensor | None = None) -> Tensor:
        """Crops as the network takes them.

        Args:
            crops: (B, 3, S, S) or (B, N, 3, S, S) uint8 of any memory order.
            gains: (B,) or (B, N) float32 by which the levels 0..255 are multiplied (and then cut to 0..1); None divides
                by 255.

        Returns:
            float32 of the same shape, on the same device.
        """
        if self._constants.device != crops.device:  # once, since it waits for the device
            self._constants = self._constants.to(crops.device)
        mean, std = self._constants
        values = crops.to(torch.float32, memory_format=torch.contiguous_format)
        if gains is None:
            values.div_(255)
        else:
            values.mul_(gains[..., None, None, None]).clamp_(0, 1)
        return values.sub_(mean).div_(std)


def normalize(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (H, W, 3) or (B, H, W, 3) -> float (B, 3, H, W): values / 255, minus `mean`, over `std`."""
    pixels = torch.from_numpy(np.ascontiguousarray(image))
    return Normaliser(mean, std)((pixels[None] if pixels.dim() == 3 else pixels).permute(0, 3, 1, 2))
