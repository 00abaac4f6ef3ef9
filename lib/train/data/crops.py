"""Packed crops: of every stored frame, the surroundings of the target, encoded again.

Reading and decoding whole frames is what training waits for. Here a pair costs two small pictures instead. They are
made once by ``tracking/make_crops.py`` (:mod:`lib.train.data.packing`) and hold all that the recipe's jitter asks for
in a stated share of the draws; a draw that asks for more is thrown away like one without content, and another pair is
drawn. Nothing else of the recipe changes: frames, jitter and augmentation are drawn by the same rules, among the
frames that are stored.

One folder per data set holds

- ``manifest.json``: what is stored and for which recipe; written last, so without it the folder is not finished;
- ``index.npy``: one :data:`RECORD` per stored frame, in order of sequence and frame;
- ``lengths.npy``: the number of frames of each sequence, stored or not;
- ``part-00000.bin``, ...: the encoded pictures, one behind the other.

They are plain files that are mapped into memory, not an LMDB: the index is shared by all processes at no cost, a part
is complete by itself (an interrupted packing goes on with the next one), and no map size has to be known beforehand.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from ...utils.crop import sample_square
from ...utils.errors import UserError
from ..dataset import Annotation
from ..dataset.columns import columns_digest
from .decode import Picture, open_picture
from .pixels import VIEWS, CropPixels, cut, moved, turned, unreadable, views_of
from .processing import CropParams, View

FORMAT = 1
MANIFEST, INDEX, LENGTHS = "manifest.json", "index.npy", "lengths.npy"
PLACE = np.dtype([("offset", "i8"), ("bytes", "i4"), ("left", "i4"), ("top", "i4"), ("width", "i4"), ("height", "i4")])
"""An encoded picture: where it is in its part, and which pixels of the frame it shows."""
RECORD = np.dtype([("sequence", "i4"), ("frame", "i4"), ("part", "i4"), ("width", "i4"), ("height", "i4"),
                   ("box_xywh", "f4", 4), *((view, PLACE) for view in VIEWS)])
"""A stored frame: its size, the target's box, and its pictures."""

_GRID = 400


def cover(view: View, quantile: float) -> float:
    """Side of the square around a box, in units of its mean side, that holds the jittered square of a view in the
    share `quantile` of the draws."""
    steps = (np.arange(_GRID) + 0.5) / _GRID
    normal = np.array([NormalDist().inv_cdf(step) for step in steps])
    zoom = np.exp(normal * view.scale_jitter / np.sqrt(2))  # of the mean side: the mean of two logarithms
    reach = view.factor + view.center_jitter * np.sqrt(steps)  # the larger one of two uniform offsets
    return float(np.quantile(zoom[:, None] * reach, quantile))


def part_name(number: int) -> str:
    """File name of a part."""
    return f"part-{number:05d}.bin"


def folder_of(crops_dir: str | Path, dataset: str) -> Path:
    """The folder of the packed crops of a data set by its name in DATASETS_NAME."""
    kind, mark, place = dataset.partition(":")
    if not mark:
        return Path(crops_dir) / dataset
    last = re.sub(r"\W+", "_", Path(place).name)
    return Path(crops_dir) / f"{kind.lower()}-{last}-{hashlib.sha1(dataset.encode()).hexdigest()[:8]}"


class PackedDataset:
    """The packed crops of a data set, as far as the sampler asks: the frames that are stored are the visible ones.

    Attributes:
        name: of the data set that they were made of, for logs and statistics.
        is_video: False for single images, whose pairs come from one image.
        folder: where they lie.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder = folder
        self.name: str = manifest["name"]
        self.is_video: bool = manifest["is_video"]
        self._records = _mapped(folder / INDEX)
        if self.is_video:
            self._lengths = _mapped(folder / LENGTHS)
            self._first = np.searchsorted(self._records["sequence"], np.arange(len(self._lengths) + 1))
        else:  # the sampler draws images without a look at them, so that only stored ones may be there
            self._lengths, self._first = np.ones(len(self._records), np.int32), np.arange(len(self._records) + 1)
        self._parts = [np.memmap(folder / part_name(number), np.uint8, "r") if size else np.empty(0, np.uint8)
                       for number, size in enumerate(manifest["parts"])]
        self._last: tuple[int, Annotation] | None = None

    def __len__(self) -> int:
        return len(self._lengths)

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """(S,) frames of each sequence and (S,) stored ones."""
        return np.asarray(self._lengths), np.diff(self._first)

    def digest(self) -> str:
        """What tells the stored frames and their boxes from others, whatever the pictures show."""
        return columns_digest([self._lengths, *(self._records[name] for name in ("sequence", "frame", "box_xywh"))])

    def annotation(self, sequence: int) -> Annotation:
        """The boxes of the stored frames of a sequence; NaN in the others."""
        if self._last is None or self._last[0] != sequence:
            records = self._of(sequence)
            boxes = np.full((self._lengths[sequence], 4), np.nan, np.float32)
            boxes[records["frame"]] = records["box_xywh"]
            self._last = sequence, Annotation.of(boxes)
        return self._last[1]

    def record(self, sequence: int, frame: int) -> np.void:
        """The :data:`RECORD` of a stored frame."""
        records = self._of(sequence)
        return records[np.searchsorted(records["frame"], frame)]

    def encoded(self, record: np.void, view: str) -> bytes:
        """The encoded picture of one of a record's views."""
        place = record[view]
        start = int(place["offset"])
        return self._parts[record["part"]][start : start + int(place["bytes"])].tobytes()

    def describe(self, record: np.void) -> str:
        """Where a record lies, for messages."""
        part = self.folder / part_name(int(record["part"]))
        return f"{part} (sequence {record['sequence']}, frame {record['frame']})"

    def _of(self, sequence: int) -> np.ndarray:
        return self._records[self._first[sequence] : self._first[sequence + 1]]


def _mapped(file: Path) -> np.ndarray:
    """An array of a file, mapped into memory."""
    try:
        return np.load(file, mmap_mode="r")
    except ValueError as error:
        raise UserError(f"{file} cannot be read: {error}") from error


class PackedFrame(NamedTuple):
    """A view of a stored frame."""

    width: int
    height: int
    place: np.void
    data: bytes
    name: str


class PackedPixels(CropPixels):
    """Crops of packed crops."""

    def open(self, dataset: PackedDataset, sequence: int, frames: Sequence[int]) -> list[PackedFrame]:
        packed_frames = []
        for view, frame in zip(views_of(self.numbers), frames, strict=True):
            record = dataset.record(sequence, frame)
            packed_frames.append(PackedFrame(int(record["width"]), int(record["height"]), record[view],
                                             dataset.encoded(record, view), dataset.describe(record)))
        return packed_frames

    def make(self, frames: Sequence[PackedFrame], params: Sequence[CropParams]) -> list[np.ndarray] | None:
        """The crops; None where a square reaches beyond what is stored of its frame."""
        for frame, crop in zip(frames, params, strict=True):
            left, top, right, bottom = crop.square.inside
            place = frame.place
            if (left < place["left"] or top < place["top"] or right > place["left"] + place["width"]
                    or bottom > place["top"] + place["height"]):
                return None
        return [turned(self._cut(frame, crop), crop.flip) for frame, crop in zip(frames, params, strict=True)]

    def _cut(self, frame: PackedFrame, crop: CropParams) -> np.ndarray:
        left, top, width, height = (int(frame.place[name]) for name in ("left", "top", "width", "height"))
        with unreadable(frame.name):
            picture = self._picture(frame)
        crop = moved(crop, left, top)
        if (picture.width, picture.height) == (width, height):
            return cut(picture, crop)
        scale_x, scale_y = picture.width / width, picture.height / height
        first, upper, last, lower = crop.square.inside
        first, last = max(0, int(first * scale_x) - 1), min(picture.width, int(last * scale_x) + 2)
        upper, lower = max(0, int(upper * scale_y) - 1), min(picture.height, int(lower * scale_y) + 2)
        with unreadable(frame.name):
            pixels = picture.region(first, upper, last, lower)
        place = (first / scale_x, upper / scale_y, (last - first) / scale_x, (lower - upper) / scale_y)
        return sample_square(pixels, place, crop.square, crop.size, mirror=crop.mirror, gray=crop.gray)

    def _picture(self, frame: PackedFrame) -> Picture:
        return open_picture(frame.data, frame.name)


def open_packed(dataset: str, crops_dir: str | Path, views: Sequence[View]) -> PackedDataset:
    """The packed crops of a data set, fit for a recipe.

    Args:
        dataset: its name in DATASETS_NAME.
        crops_dir: the folder of all packed crops.
        views: template and search of the recipe.

    Raises:
        UserError: there are none, they are not complete, or they were made for less than the recipe asks for.
    """
    folder = folder_of(crops_dir, dataset)
    remedy = (f"Make them with `python tracking/make_crops.py --script SCRIPT --config CONFIG --datasets {dataset}`, "
              "or set DATA.LOADER to frames")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise UserError(f"{folder / MANIFEST} is of format {manifest['format']}, not {FORMAT}")
        for number, size in enumerate(manifest["parts"]):
            actual = (folder / part_name(number)).stat().st_size
            if actual != size:
                raise UserError(f"{folder / part_name(number)} has {actual} bytes instead of {size}")
        stored = {view: View(**manifest["views"][view]) for view in VIEWS}
        quantile = float(manifest["quantile"])
        packed = PackedDataset(folder, manifest)
    except FileNotFoundError as error:
        raise UserError(f"packed crops of {dataset}: {error.filename} not found. {remedy}") from error
    except UserError as error:
        raise UserError(f"packed crops of {dataset}: {error}; delete the folder. {remedy}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"packed crops of {dataset}: {folder / MANIFEST} cannot be used ({type(error).__name__}: "
                        f"{error}); delete the folder. {remedy}") from error
    for name, view in zip(VIEWS, views, strict=True):
        have, want = stored[name], view
        if cover(want, quantile) > cover(have, quantile) + 1e-6 or want.size / want.factor > have.size / have.factor:
            raise UserError(f"packed crops of {dataset}: {folder} was made for DATA.{name.upper()} {_describe(have)}, "
                            f"which does not hold what the configuration asks for: {_describe(want)}. {remedy}")
    return packed


def _describe(view: View) -> str:
    return (f"SIZE {view.size}, FACTOR {view.factor:g}, CENTER_JITTER {view.center_jitter:g}, "
            f"SCALE_JITTER {view.scale_jitter:g}")
