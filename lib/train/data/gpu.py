"""Frames decoded and cropped on the device: workers only read files and draw numbers.

Of a CUDA device nvJPEG decodes the JPEG files of a batch together (:func:`torchvision.io.decode_jpeg`); on the CPU the
same function decodes them with libjpeg-turbo. All crops are then made at once, whatever the sizes of the frames, with
the pixels of :mod:`lib.utils.crop` (:mod:`lib.utils.device_crop`). With libjpeg-turbo they equal those of the workers'
crops; nvJPEG's own pixels differ from libjpeg-turbo's by a little.

What torchvision decodes otherwise or not at all (PNG, CMYK, turned pictures, videos) is decoded in the worker, and only
the part under the crops travels.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from ...utils.device_crop import Axis, axes_of, interpolation_weights, resize
from ...utils.errors import UserError
from .decode import JpegPicture, Picture
from .device import to_device
from .pixels import VIEWS, FramePixels, Sample, by_frame, channels_first, inside_of, moved, unreadable, views_of
from .processing import CropParams, Numbers

_JPEG, _RAW = 0, 1
_NO_MEMORY = re.compile("out of memory|: 5$")
"""What PyTorch says of missing memory, and nvJPEG (its status 5), through torchvision, which makes one kind of error of
all."""


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
    """The payload is the sample's frames, each once, its params in them, and which crop is of which frame.

    Args:
        template_size, search_size, numbers: see :class:`FramePixels`.
        device: where the frames are to be decoded, which is tried now; None tries nothing.

    Raises:
        UserError: it cannot decode JPEG files.
    """

    uploads = False

    def __init__(self, template_size: int, search_size: int, device: torch.device | None = None,
                 numbers: Numbers = (1, 1)):
        super().__init__(template_size, search_size, numbers)
        if device is not None:
            _check_decoding(device)

    def make(self, frames: Sequence[Picture], params: Sequence[CropParams]
             ) -> tuple[list[_Frame], list[CropParams], list[int]]:
        packed, placed, of_frame = [], list(params), [0] * len(params)
        for number, rows in enumerate(by_frame(frames)):
            frame, moved_params = _pack(frames[rows[0]], [params[row] for row in rows])
            packed.append(frame)
            for row, crop in zip(rows, moved_params, strict=True):
                placed[row], of_frame[row] = crop, number
        return packed, placed, of_frame

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """`data`: all frames one behind the other, uint8; `frames` (F, 4) int64: kind, width, height, bytes; `keys`.
        Of both views, whose crops stand one behind the other, sample by sample: `<view>_places` and `<view>_weights`,
        see `interpolation_weights`, and `<view>_gray`, the rows of grey crops."""
        frames: list[_Frame] = []
        crops: dict[str, list[tuple[CropParams, tuple[Axis, Axis]]]] = {view: [] for view in VIEWS}
        views = views_of(self.numbers)
        pixels = 0
        for sample in samples:
            new, params, of_frame = sample.payload
            begins = []
            for frame in new:
                begins.append(pixels)
                pixels += frame.width * frame.height
            for view, crop, number in zip(views, params, of_frame, strict=True):
                axes = axes_of(crop.square, new[number].width, begins[number], mirror=crop.mirror)
                crops[view].append((crop, axes))
            frames += new
        table = np.array([(frame.kind, frame.width, frame.height, len(frame.data)) for frame in frames], np.int64)
        batch = {"data": torch.from_numpy(np.concatenate([frame.data for frame in frames])),
                 "frames": torch.from_numpy(table), "keys": [sample.key for sample in samples]}
        for view, size in zip(VIEWS, self.sizes, strict=True):
            params, axes = zip(*crops[view], strict=True)
            weights = interpolation_weights(axes, size, [crop.flip for crop in params])
            batch[f"{view}_places"], batch[f"{view}_weights"] = map(torch.from_numpy, weights)
            batch[f"{view}_gray"] = [row for row, crop in enumerate(params) if crop.gray]
        return batch

    def crops(self, batch: dict[str, Any], device: torch.device) -> tuple[Tensor, Tensor]:
        """See :class:`Pixels`.

        Raises:
            Undecodable: a frame's file is damaged, or of a kind that the device cannot decode.
            torch.OutOfMemoryError: the device's memory is too small for the batch.
        """
        pixels = _decode(batch["data"], batch["frames"], device)
        made = (resize(pixels, *to_device([batch[f"{view}_places"], batch[f"{view}_weights"]], device),
                       batch[f"{view}_gray"]) for view in VIEWS)
        template, search = (channels_first(crops.unflatten(0, (-1, number)))
                            for crops, number in zip(made, self.numbers, strict=True))
        return template, search


def _pack(picture: Picture, params: Sequence[CropParams]) -> tuple[_Frame, list[CropParams]]:
    """A frame as it travels, and the params in it."""
    if isinstance(picture, JpegPicture):
        return _Frame(_JPEG, picture.width, picture.height, np.frombuffer(picture.data, np.uint8)), list(params)
    left, top, right, bottom = inside_of(params)
    with unreadable(picture.name):
        pixels = np.ascontiguousarray(picture.region(left, top, right, bottom))
    return (_Frame(_RAW, right - left, bottom - top, pixels.reshape(-1)),
            [moved(crop, left, top) for crop in params])


def _decode(data: Tensor, table: Tensor, device: torch.device) -> Tensor:
    """The pixels of all frames of a batch, one frame behind the other.

    Args:
        data, table: see :meth:`DevicePixels.collate`; on the CPU.

    Returns:
        (N, 3) uint8 on `device`.
    """
    parts = list(data.split(table[:, 3].tolist()))
    rows = [(number, *row) for number, row in enumerate(table[:, :3].tolist())]
    jpegs = [(number, width, height) for number, kind, width, height in rows if kind == _JPEG]
    decoded = _decode_jpegs([parts[i] for i, *_ in jpegs], device) if jpegs else []
    for (number, width, height), image in zip(jpegs, decoded, strict=True):
        if image.shape != (3, height, width):
            raise Undecodable(f"an image of {width} x {height} pixels came out on {device} as {tuple(image.shape)}")
        parts[number] = image
    for number, kind, width, height in rows:
        if kind == _RAW:
            parts[number] = to_device(parts[number], device).view(height, width, 3).permute(2, 0, 1)
    return torch.cat([part.flatten(1) for part in parts], dim=1).t()


def _decode_jpegs(files: list[Tensor], device: torch.device) -> list[Tensor]:
    """The pictures (3, h, w) uint8 RGB of JPEG files, on `device`."""
    try:
        return decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
    except RuntimeError as error:
        message = (str(error).splitlines() or [""])[0]
        if _NO_MEMORY.search(message):
            raise torch.OutOfMemoryError(f"{device} has no memory for {len(files)} decoded images") from error
        if isinstance(error, torch.AcceleratorError) or "CUDA error" in message:
            raise
        raise Undecodable(f"an image cannot be decoded on {device} ({message})") from error


def _check_decoding(device: torch.device) -> None:
    """Raise `UserError` where `device` cannot decode a small JPEG file: torchvision may have been built without."""
    picture = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1]
    try:
        _decode_jpegs([torch.from_numpy(picture.reshape(-1))], device)
    except (Undecodable, AttributeError) as error:      # the latter where torchvision has no decoders at all
        raise UserError(f"torchvision {torchvision.__version__} cannot decode a JPEG file on {device}, which "
                        "DATA.LOADER gpu needs; install a build for your CUDA, with nvJPEG (see pytorch.org), or set "
                        "DATA.LOADER to frames or crops") from error
