"""Frames decoded and cropped on the device: workers only read files and draw numbers.

Of a CUDA device nvJPEG decodes the JPEG files of a batch together (:func:`torchvision.io.decode_jpeg`); on the CPU the
same function decodes them with libjpeg-turbo. All crops are then gathered at once, whatever the sizes of the frames.
The squares, turns and padding are those of :mod:`lib.utils.crop`; the bilinear sums are rounded once, which leaves a
grey level of difference from OpenCV's. nvJPEG's own pixels differ from libjpeg-turbo's by a little more.

What torchvision decodes otherwise or not at all (PNG, CMYK, turned pictures, videos) is decoded in the worker, and only
the part under the crops travels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from lib.train.data.decode import JpegPicture, Picture
from lib.train.data.device import to_device
from lib.train.data.pixels import VIEWS, FramePixels, Sample, inside_of, moved, unreadable
from lib.train.data.processing import Shot

_CHUNK = 1 << 25
"""Values that are gathered at a time."""
_LUMA = (0.299, 0.587, 0.114)
_JPEG, _RAW = 0, 1


class Undecodable(Exception):
    """The device cannot decode an image of a batch."""


class _Frame(NamedTuple):
    """One frame in a sample's payload."""

    kind: int
    """A JPEG file's content, or pixels (h, w, 3)."""
    width: int
    height: int
    data: np.ndarray
    """(N,) uint8."""


class DevicePixels(FramePixels):
    """The payload is the sample's frames, one or two, its shots in them, and which shot is of which frame."""

    uploads = False

    def make(self, frames: Sequence[Picture], shots: Sequence[Shot]) -> tuple[list[_Frame], list[Shot], list[int]]:
        if frames[0] is frames[1]:
            frame, placed = _pack(frames[0], shots)
            return [frame], placed, [0, 0]
        packed = [_pack(frame, [shot]) for frame, shot in zip(frames, shots, strict=True)]
        return [frame for frame, _ in packed], [placed[0] for _, placed in packed], [0, 1]

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """`data`: all frames one behind the other, uint8; `frames` (F, 4) int64: kind, width, height, bytes;
        `squares` (2, B, 9) int64: frame, then as in :func:`gather_crops`; `keys`."""
        frames: list[_Frame] = []
        squares = np.empty((len(VIEWS), len(samples), 9), np.int64)
        for row, sample in enumerate(samples):
            new, shots, of_frame = sample.payload
            for view, (shot, number) in enumerate(zip(shots, of_frame, strict=True)):
                turns = shot.mirror + 2 * shot.flip + 4 * shot.gray
                left, top, side, padding = shot.square
                squares[view, row] = (len(frames) + number, left, top, side, *padding, turns)
            frames += new
        table = np.array([(frame.kind, frame.width, frame.height, len(frame.data)) for frame in frames], np.int64)
        return {"data": torch.from_numpy(np.concatenate([frame.data for frame in frames])),
                "frames": torch.from_numpy(table), "squares": torch.from_numpy(squares),
                "keys": [sample.key for sample in samples]}

    def crops(self, batch: dict[str, Any], device: torch.device) -> tuple[Tensor, Tensor]:
        """See :class:`Pixels`.

        Raises:
            Undecodable: a frame's file is damaged, or of a kind that the device cannot decode.
        """
        pixels, places = _decode(batch["data"], batch["frames"], device)
        places = to_device(places, device)
        squares = to_device(batch["squares"], device)
        template, search = (gather_crops(pixels, places[rows[:, 0]], rows[:, 1:], size)
                            for rows, size in zip(squares, self.sizes, strict=True))
        return template, search


def _pack(picture: Picture, shots: Sequence[Shot]) -> tuple[_Frame, list[Shot]]:
    """A frame as it travels, and the shots in it."""
    if isinstance(picture, JpegPicture):
        return _Frame(_JPEG, picture.width, picture.height, np.frombuffer(picture.data, np.uint8)), list(shots)
    left, top, right, bottom = inside_of(shots)
    with unreadable(picture.name):
        pixels = np.ascontiguousarray(picture.region(left, top, right, bottom))
    return (_Frame(_RAW, right - left, bottom - top, pixels.reshape(-1)),
            [moved(shot, left, top) for shot in shots])


def _decode(data: Tensor, table: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """All frames of a batch as planes one behind the other.

    Args:
        data, table: see :meth:`DevicePixels.collate`; on the CPU.

    Returns:
        (N,) uint8 on `device`, and on the CPU (F, 3) int64: where in it a frame begins, its width and its height.
    """
    _, widths, heights, lengths = table.unbind(1)
    parts = list(data.split(lengths.tolist()))
    rows = [(number, *row) for number, row in enumerate(table[:, :3].tolist())]
    jpegs = [(number, width, height) for number, kind, width, height in rows if kind == _JPEG]
    try:
        decoded = decode_jpeg([parts[i] for i, *_ in jpegs], mode=ImageReadMode.RGB, device=device) if jpegs else []
    except RuntimeError as error:
        raise Undecodable(f"an image cannot be decoded on {device} ({str(error).splitlines()[0]})") from error
    for (number, width, height), image in zip(jpegs, decoded, strict=True):
        if image.shape != (3, height, width):
            raise Undecodable(f"an image of {width} x {height} pixels came out on {device} as {tuple(image.shape)}")
        parts[number] = image
    for number, kind, width, height in rows:
        if kind == _RAW:
            parts[number] = to_device(parts[number], device).view(height, width, 3).permute(2, 0, 1)
    values = 3 * widths * heights
    return (torch.cat([part.reshape(-1) for part in parts]),
            torch.stack([values.cumsum(0) - values, widths, heights], dim=1))


def gather_crops(pixels: Tensor, places: Tensor, squares: Tensor, size: int) -> Tensor:
    """Crops of frames of any size, all at once.

    Args:
        pixels: (N,) uint8, the three planes of every frame.
        places: (B, 3) int64, for each crop where its frame's planes begin in `pixels`, its width and height.
        squares: (B, 8) int64: left, top, side; left, top, right, bottom padding; and as bits mirror before the resizing
            (1), flip after it (2), grey (4).
        size: side of the crops.

    Returns:
        (B, 3, size, size) uint8.
    """
    step = max(1, _CHUNK // (3 * size * size))
    return torch.cat([_gather(pixels, places[first : first + step], squares[first : first + step], size)
                      for first in range(0, len(squares), step)])


def _gather(pixels: Tensor, places: Tensor, squares: Tensor, size: int) -> Tensor:
    begin, width, height = places.unbind(1)
    left, top, side, pad_left, pad_top, pad_right, pad_bottom, turns = squares.unbind(1)
    columns = _taps(side, size, mirror=(turns & 1).bool(), flip=(turns & 2).bool())
    rows = _taps(side, size)
    plane = (width * height)[:, None] * torch.arange(3, device=pixels.device)
    total = torch.zeros(len(squares), 3, size, size, device=pixels.device)
    for row, row_weight in rows:
        row_inside = (row >= pad_top[:, None]) & (row < (side - pad_bottom)[:, None])
        y = (top[:, None] + row).clamp(min=0).minimum(height[:, None] - 1)
        for column, column_weight in columns:
            column_inside = (column >= pad_left[:, None]) & (column < (side - pad_right)[:, None])
            x = (left[:, None] + column).clamp(min=0).minimum(width[:, None] - 1)
            offset = begin[:, None, None] + (y * width[:, None])[:, :, None] + x[:, None, :]
            weight = (row_weight * row_inside)[:, :, None] * (column_weight * column_inside)[:, None, :]
            values = pixels[offset[:, None] + plane[:, :, None, None]]
            total.addcmul_(values.float(), weight[:, None])
    gray = (turns & 4).bool()
    luma = sum(share * plane for share, plane in zip(_LUMA, total.unbind(1), strict=True))
    return torch.where(gray[:, None, None, None], luma[:, None], total).add_(0.5).to(torch.uint8)


def _taps(side: Tensor, size: int, mirror: Tensor | None = None, flip: Tensor | None = None
          ) -> list[tuple[Tensor, Tensor]]:
    """The two source positions (B, size), counted from the square's begin, that bilinear resizing from `side` (B,) to
    `size` reads for each output position, and their weights."""
    target = torch.arange(size, device=side.device).expand(len(side), size)
    if flip is not None:
        target = torch.where(flip[:, None], size - 1 - target, target)
    last = (side - 1)[:, None]
    source = ((target + 0.5) * (side / size)[:, None] - 0.5).clamp(min=0).minimum(last)
    low = source.floor().long()
    high = (low + 1).minimum(last)
    weight = source - low
    if mirror is not None:
        low, high = (torch.where(mirror[:, None], last - position, position) for position in (low, high))
    return [(low, 1 - weight), (high, weight)]
