"""From crop parameters to crops: what a loader's workers deliver, and how it becomes the network's input on the device.

:class:`FramePixels` is the exact way: the part of each frame that is needed is decoded, cropped and resized in the
worker; the crops travel as bytes and become numbers on the device. Its siblings take the crops from packed files
(:mod:`lib.train.data.crops`) or make them on the device (:mod:`lib.train.data.gpu`).
"""

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ...utils.crop import resize_square, sample_square
from ...utils.errors import UserError
from ..dataset import TrackingDataset
from .decode import SHRINKS, DecodedPicture, Picture, open_picture
from .device import to_device
from .processing import CropParams, Numbers

VIEWS = ("template", "search")
Key = tuple[int, int]
"""(epoch, index of the sample within it)"""


FEW_UNREADABLE = 10
"""So many images may be unreadable whatever their share, unless none may be."""

_ONE_READS_VIDEO = threading.Lock()  # a video's reader goes forward from frame to frame


class Unreadable(UserError):
    """An image that is missing or damaged; `file` is its place."""

    def __init__(self, message: str, file: str):
        super().__init__(message)
        self.file = file


def too_many(unreadable: int, tried: int, limit: float) -> bool:
    """Whether more images were unreadable than the share `limit` of those tried allows (DATA.MAX_UNREADABLE)."""
    return unreadable > (max(limit * tried, FEW_UNREADABLE) if limit > 0 else 0)


@contextlib.contextmanager
def unreadable(file: str) -> Iterator[None]:
    """A `UserError` inside becomes an :class:`Unreadable` of `file`."""
    try:
        yield
    except UserError as error:
        raise Unreadable(str(error), file) from error


class Sample(NamedTuple):
    """A training pair on its way into a batch."""

    key: Key
    dataset: str
    params: tuple[CropParams, ...]
    """Of the templates, then of the search regions."""
    payload: Any
    """Their pixels, as the loader's :class:`Pixels` makes them."""
    failures: tuple[Unreadable, ...]
    """Images that could not be read before these could."""


def views_of(numbers: Numbers) -> list[str]:
    """Which of `VIEWS` each crop of a sample is."""
    return [view for view, number in zip(VIEWS, numbers, strict=True) for _ in range(number)]


def by_view(values: Tensor, numbers: Numbers) -> Sequence[Tensor]:
    """(B, T + S, ...) values of the templates and of the search regions as (B, T, ...) and (B, S, ...), without the
    second dimension where there is but one."""
    return [part.squeeze(1) for part in values.split(numbers, dim=1)]


def channels_first(pixels: Tensor) -> Tensor:
    """Pixels (B, N, h, w, 3) as crops (B, N, 3, h, w) of the same memory, or (B, 3, h, w) of one."""
    return pixels.squeeze(1).movedim(-1, -3)


class Pixels(ABC):
    """Makes the pixels of samples: `open`, `make` and `collate` in a worker, `crops` in the main process.

    Args:
        numbers: of the templates and search regions of a sample.
    """

    uploads = True
    """Whether the tensors of a batch are wanted on the device as they are."""
    normalised = False
    """Whether `crops` gives what the network takes: float32, with brightness and normalisation."""

    def __init__(self, numbers: Numbers = (1, 1)):
        self.numbers = numbers

    @abstractmethod
    def open(self, dataset: TrackingDataset, sequence: int, frames: Sequence[int]) -> Sequence[Any]:
        """The templates' and the search regions' frames, with `width` and `height` of the whole frame in pixels.

        Raises:
            Unreadable: an image is missing, or damaged as far as can be seen without decoding it.
        """

    @abstractmethod
    def make(self, frames: Sequence[Any], params: Sequence[CropParams]) -> Any | None:
        """The payload of a sample. None where it cannot be made of these frames and another is to be drawn.

        Raises:
            Unreadable: an image is damaged.
        """

    @abstractmethod
    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The payloads of a batch in as few tensors as possible."""

    @abstractmethod
    def crops(self, batch: dict[str, Any], device: torch.device) -> tuple[Tensor, Tensor]:
        """Template (B, T, 3, h, w) and search (B, S, 3, H, W) crops on `device` of a batch, without the second
        dimension where there is but one; uint8, or `normalised`."""


class CropPixels(Pixels):
    """Pixels whose crops are made in the worker: the payload is crops, (h, w, 3) and (H, W, 3) uint8.

    Args:
        template_size, search_size: sides of the crops in pixels.
        numbers: see :class:`Pixels`.
    """

    def __init__(self, template_size: int, search_size: int, numbers: Numbers = (1, 1)):
        super().__init__(numbers)
        self.sizes = (template_size, search_size)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        pixels = np.empty((len(samples), sum(self._lengths)), np.uint8)
        for row, sample in zip(pixels, samples, strict=True):
            start = 0
            for crop in sample.payload:
                row[start : start + crop.size] = crop.reshape(-1)
                start += crop.size
        return {"pixels": torch.from_numpy(pixels)}

    def crops(self, batch: dict[str, Any], device: torch.device) -> tuple[Tensor, Tensor]:
        parts = to_device(batch["pixels"], device).split(self._lengths, dim=1)
        template, search = (channels_first(part.unflatten(1, (-1, size, size, 3)))
                            for part, size in zip(parts, self.sizes, strict=True))
        return template, search

    @property
    def _lengths(self) -> list[int]:
        """Bytes of a sample's templates and of its search regions."""
        return [number * 3 * size * size for number, size in zip(self.numbers, self.sizes, strict=True)]


class FramePixels(CropPixels):
    """Crops of whole frames.

    Args:
        template_size, search_size, numbers: see :class:`CropPixels`.
        decoder: see :func:`lib.train.data.decode.open_picture`.
        scaled: decode JPEG files at 1/2, 1/4 or 1/8 where the square has at least 2, 4 or 8 times the crop's side;
            the pixels differ then.
    """

    def __init__(self, template_size: int, search_size: int, numbers: Numbers = (1, 1), decoder: str = "auto",
                 scaled: bool = False):
        super().__init__(template_size, search_size, numbers)
        self.decoder = decoder
        self.scaled = scaled

    def open(self, dataset: TrackingDataset, sequence: int, frames: Sequence[int]) -> list[Picture]:
        """The frames as pictures; the same object where several are the same frame."""
        pictures: dict[int, Picture] = {}
        for frame in sorted(set(frames)):
            name = dataset.frame_path(sequence, frame)
            with unreadable(name):
                pictures[frame] = self._picture(dataset, sequence, frame, name)
        return [pictures[frame] for frame in frames]

    def _picture(self, dataset: TrackingDataset, sequence: int, frame: int, name: str) -> Picture:
        data = dataset.encoded(sequence, frame)
        if data is not None:
            return open_picture(data, name, self.decoder)
        with _ONE_READS_VIDEO:
            return DecodedPicture(dataset.frame(sequence, frame), name)

    def make(self, frames: Sequence[Picture], params: Sequence[CropParams]) -> list[np.ndarray]:
        if not self.scaled:
            for rows in by_frame(frames):
                if len(rows) > 1:
                    frames, params = _decoded_once(frames, params, rows)
        return [turned(self._cut(picture, crop), crop.flip) for picture, crop in zip(frames, params, strict=True)]

    def _cut(self, picture: Picture, crop: CropParams) -> np.ndarray:
        for factor in SHRINKS if self.scaled else ():
            if crop.square.side >= factor * crop.size:
                small = picture.shrunk(factor)
                if small is not None:
                    return _cut_shrunk(small, factor, crop)
        return cut(picture, crop)


def cut(picture: Picture, crop: CropParams) -> np.ndarray:
    """A crop's crop (size, size, 3) uint8 of a frame, before the last turn."""
    with unreadable(picture.name):
        pixels = picture.region(*crop.square.inside)
    return resize_square(pixels, crop.square, crop.size, mirror=crop.mirror, gray=crop.gray)


def turned(crop: np.ndarray, flip: bool) -> np.ndarray:
    """The crop, turned left-right if `flip`."""
    return cv2.flip(crop, 1) if flip else crop


def by_frame(frames: Sequence[Picture]) -> list[list[int]]:
    """Which of a sample's crops are of the same frame, in the order of the first of each."""
    rows: dict[int, list[int]] = {}
    for row, frame in enumerate(frames):
        rows.setdefault(id(frame), []).append(row)
    return list(rows.values())


def inside_of(params: Sequence[CropParams]) -> tuple[int, int, int, int]:
    """The smallest part of a frame (left, top, right, bottom) that holds what all `params` need of it."""
    left, top, right, bottom = zip(*(crop.square.inside for crop in params), strict=True)
    return min(left), min(top), max(right), max(bottom)


def moved(crop: CropParams, left: int, top: int) -> CropParams:
    """The same crop in the part of its frame that begins at column `left` and row `top`."""
    square = crop.square
    return crop._replace(square=square._replace(left=square.left - left, top=square.top - top))


def _decoded_once(frames: Sequence[Picture], params: Sequence[CropParams], rows: Sequence[int]
                  ) -> tuple[list[Picture], list[CropParams]]:
    """The same with the part of the frame of all `rows` that these need, decoded, in its place."""
    frames, params, picture = list(frames), list(params), frames[rows[0]]
    left, top, right, bottom = inside_of([params[row] for row in rows])
    with unreadable(picture.name):
        part = DecodedPicture(picture.region(left, top, right, bottom), picture.name)
    for row in rows:
        frames[row], params[row] = part, moved(params[row], left, top)
    return frames, params


def _cut_shrunk(small: Picture, factor: int, crop: CropParams) -> np.ndarray:
    left, top, right, bottom = crop.square.inside
    first, upper = max(0, left // factor - 1), max(0, top // factor - 1)
    last, lower = min(small.width, right // factor + 2), min(small.height, bottom // factor + 2)
    place = (first * factor, upper * factor, (last - first) * factor, (lower - upper) * factor)
    with unreadable(small.name):
        pixels = small.region(first, upper, last, lower)
    return sample_square(pixels, place, crop.square, crop.size, mirror=crop.mirror, gray=crop.gray)
