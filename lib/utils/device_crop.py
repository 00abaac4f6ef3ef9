"""Crops cut and resized on the device, with the pixels of :mod:`lib.utils.crop`.

OpenCV resizes bytes in whole numbers: a position's share is a multiple of 1 / 2048, the two pixels of a row are summed
with these weights, and the two sums of a column lose low bits before and after their own weights. The same steps in
32-bit whole numbers give the same bytes on every device (compared with OpenCV 5.0 on x86-64). Which pixels a crop reads
and what they weigh is a short table, :func:`interpolation_weights`, made on the CPU in NumPy; :func:`resize` does the
rest on the device in eleven operations for a batch, and waits for nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .crop import Square

_ONE = 2048
"""The weights of two neighbours together."""
_LUMA, _LUMA_BITS = (9798, 19235, 3735), 15
"""Shares of red, green and blue in OpenCV's grey, in units of 2 ** -15."""
_CHUNK = 1 << 24
"""Pixel values that are gathered at a time; each takes about 12 bytes on the way."""

Axis = tuple[int, int, int, int, int]
"""One axis of a square, see :func:`axes_of`."""
_PADDING: tuple[Axis, Axis] = ((1, 1, 1, 0, 0), (1, 1, 1, 0, 0))
"""Of a square of nothing but padding: no position lies within, so all weights are 0."""


class InterpolationWeights(NamedTuple):
    """The two rows and the two columns that each row and column of some crops is made of."""

    places: np.ndarray
    """(B, 2, 2, size) int64; axis (rows, columns), then neighbour. The sum of a row's and a column's place is the
    pixel's number."""
    weights: np.ndarray
    """(B, 2, 2, size) int32; the neighbours' add up to 2048, or less where they are padding."""


def axes_of(square: Square, width: int, begin: int = 0, *, mirror: bool = False) -> tuple[Axis, Axis]:
    """Where a square's rows and columns lie among the pixels of several pictures, one behind the other.

    Args:
        square: in the pixels of its picture; what is not padding must lie within it.
        width: of the picture.
        begin: number of the picture's first pixel.
        mirror: turn the square left-right before it is resized.

    Returns:
        For the rows and for the columns: the square's side, the first and the last position that are not padding, the
        place of position 0 and the step from one position to the next.
    """
    if square.is_padding:
        return _PADDING
    side, (left, top, right, bottom) = square.side, square.padding
    rows = (side, top, side - 1 - bottom, begin + square.top * width, width)
    if mirror:
        return rows, (side, right, side - 1 - left, square.left + side - 1, -1)
    return rows, (side, left, side - 1 - right, square.left, 1)


def interpolation_weights(axes: Sequence[tuple[Axis, Axis]], size: int, flip: Sequence[bool] | None = None
                          ) -> InterpolationWeights:
    """The pixels of crops of `size` x `size` pixels.

    Args:
        axes: of each square, see :func:`axes_of`.
        flip: which crops to turn left-right after the resizing; None none.
    """
    numbers = np.array(axes, np.int64)
    side, first, last, origin, step = (numbers[:, :, number, None, None] for number in range(5))      # (B, 2, 1, 1)
    scale = 1 / (size / side[:, 0, 0])                                                              # (B, 1)
    source = ((np.arange(size) + 0.5) * scale - 0.5).astype(np.float32)
    low = np.floor(source)
    share = source - low
    weights = np.rint(np.stack([1 - share, share], axis=1) * np.float32(_ONE)).astype(np.int32)     # (B, 2, size)
    position = low.astype(np.int64)[:, None] + np.array([[0], [1]])
    position = np.minimum(np.maximum(position, 0), side[:, 0] - 1)[:, None]                         # (B, 1, 2, size)
    inside = np.minimum(np.maximum(position, first), last)                                          # (B, 2, 2, size)
    table = InterpolationWeights(origin + step * inside, weights[:, None] * (inside == position))
    if flip is not None:
        turned = np.array(flip, bool)
        for values in table:
            values[turned, 1] = values[turned, 1, :, ::-1]
    return table


def resize(pixels: Tensor, places: Tensor, weights: Tensor, gray: Sequence[int] = ()) -> Tensor:
    """Crops of pixels on a device, equal to those of :func:`lib.utils.crop.resize_square`; nothing is waited for.

    Args:
        pixels: (N, 3) uint8 of any memory order, N at least 1.
        places, weights: of `InterpolationWeights`, on the same device.
        gray: numbers of the crops to turn to grey (three equal channels) before they are resized.

    Returns:
        (B, size, size, 3) uint8.
    """
    count, size = len(places), places.shape[-1]
    step = max(1, _CHUNK // (12 * size * size))
    parts = [_resize(pixels, places[begin : begin + step], weights[begin : begin + step],
                     [number - begin for number in gray if begin <= number < begin + step])
             for begin in range(0, count, step)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _resize(pixels: Tensor, places: Tensor, weights: Tensor, gray: Sequence[int]) -> Tensor:
    numbers = places[:, 0, :, None, :, None] + places[:, 1, None, :, None, :]       # (B, 2, 2, size, size)
    corners = pixels.index_select(0, numbers.flatten()).unflatten(0, numbers.shape)    # (B, 2, 2, size, size, 3)
    for crop in gray:
        corners[crop] = _luma(corners[crop])
    corners = corners * weights[:, 1, None, :, None, :, None]
    sums = torch.add(corners[:, :, 0], corners[:, :, 1]).bitwise_right_shift_(4)          # (B, 2, size, size, 3)
    sums = sums.mul_(weights[:, 0, :, :, None, None]).bitwise_right_shift_(16)
    return torch.add(sums[:, 0], sums[:, 1]).add_(2).bitwise_right_shift_(2).to(torch.uint8)


def _luma(pixels: Tensor) -> Tensor:
    """(..., 3) uint8 RGB -> (..., 1) int32, OpenCV's grey."""
    red, green, blue = (share * channel for share, channel in zip(_LUMA, pixels.int().unbind(-1), strict=True))
    return ((red + green + blue + (1 << _LUMA_BITS - 1)) >> _LUMA_BITS).unsqueeze(-1)


class _Region:
    """A part of an image that is copied, and which squares lie in it."""

    def __init__(self, image: np.ndarray, square: Square, number: int):
        self.image, self.squares = image, [number]
        self.left, self.top, self.right, self.bottom = square.inside

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    @property
    def area(self) -> int:
        """Pixels."""
        return self.shape[0] * self.shape[1]

    def take(self, other: "_Region") -> bool:
        """Become the smallest region that holds both; False, and no change, where that has more pixels than both."""
        left, top = min(self.left, other.left), min(self.top, other.top)
        right, bottom = max(self.right, other.right), max(self.bottom, other.bottom)
        if self.image is not other.image or (right - left) * (bottom - top) > self.area + other.area:
            return False
        self.left, self.top, self.right, self.bottom = left, top, right, bottom
        self.squares += other.squares
        return True


def _regions(images: Sequence[np.ndarray], squares: Sequence[Square]) -> list[_Region]:
    """What to copy of the images: squares that lie together in the same object are copied together."""
    regions: list[_Region] = []
    for number, (image, square) in enumerate(zip(images, squares, strict=True)):
        if not square.is_padding:
            new = _Region(image, square, number)
            if not any(region.take(new) for region in regions):
                regions.append(new)
    return regions


def cut_on_device(images: Sequence[np.ndarray], squares: Sequence[Square], size: int, device: torch.device) -> Tensor:
    """Crops of frames on the CPU, resized on a device; equal to those of :func:`lib.utils.crop.cut_square`.

    Only the pixels inside the squares are copied, once, with the weights behind each other in one buffer. On CUDA it is
    pinned and copied without waiting: the images may be changed as soon as this returns. PyTorch's allocator gives
    pinned memory to the next call only when the copy from it is done, so no buffer is written while it is read.

    Args:
        images: the frame of each square, (H, W, 3) uint8. Squares of one frame are best given with the same object:
            they are copied together where that is less.
        squares: of each crop, in its image.
        size: side of the crops.

    Returns:
        (B, size, size, 3) uint8 on `device`.
    """
    regions = _regions(images, squares)
    axes = [_PADDING] * len(squares)
    begin = 0
    for region in regions:
        for number in region.squares:
            square = squares[number]
            moved = square._replace(left=square.left - region.left, top=square.top - region.top)
            axes[number] = axes_of(moved, region.shape[1], begin)
        begin += region.area
    places, weights = interpolation_weights(axes, size)
    lengths = [places.nbytes, weights.nbytes, 3 * max(1, begin)]
    buffer = torch.empty(sum(lengths), dtype=torch.uint8, pin_memory=device.type == "cuda")
    values = buffer.numpy()
    first, second = lengths[0], lengths[0] + lengths[1]
    values[:first].view(np.int64)[:] = places.reshape(-1)
    values[first:second].view(np.int32)[:] = weights.reshape(-1)
    position = second
    for region in regions:
        part = values[position : position + 3 * region.area].reshape(*region.shape, 3)
        part[:] = region.image[region.top : region.bottom, region.left : region.right]
        position += part.size
    on_device = buffer.to(device, non_blocking=True).split(lengths)
    return resize(on_device[2].view(-1, 3), on_device[0].view(torch.int64).view(places.shape),
                  on_device[1].view(torch.int32).view(weights.shape))
