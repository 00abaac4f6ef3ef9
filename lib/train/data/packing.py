"""Makes packed crops: see :mod:`lib.train.data.crops` for what they are."""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from ...utils.errors import UserError
from ...utils.files import atomic_write, write_text
from ...utils.ownership import own
from ...utils.progress import Progress
from ..dataset import TrackingDataset
from .crops import FORMAT, INDEX, LENGTHS, MANIFEST, RECORD, cover, folder_of, part_name
from .pixels import VIEWS, FramePixels, Unreadable, too_many, unreadable
from .processing import View

logger = logging.getLogger(__name__)

RECIPE = "recipe.json"
PART_FRAMES = 4096
"""Frames after which a part ends (with the sequence)."""
ESTIMATE_FRAMES = 32
_MARGIN = 4
"""Pixels stored beyond the covered square, for the rounding to whole pixels."""
_SPARE = 1.1
"""Free disk asked for, over the estimate."""


@dataclass(frozen=True)
class Recipe:
    """How frames are packed.

    Attributes:
        dataset: name in DATASETS_NAME.
        template, search: the views that training will draw.
        quantile: share of the jittered squares that is held whole.
        stride: every stride-th frame of a video is stored.
        quality: of the JPEG files, 1 to 100.
        density: pixels stored per pixel of an unjittered crop; frames are never enlarged.
        max_side: longest side of a stored picture in pixels.
    """

    dataset: str
    template: View
    search: View
    quantile: float = 0.99
    stride: int = 1
    quality: int = 95
    density: float = 1.5
    max_side: int = 1280

    def to_dict(self) -> dict:
        """For JSON."""
        return {**asdict(self), "template": self.template._asdict(), "search": self.search._asdict()}


class Packing:
    """The packing of one data set.

    Args:
        recipe: how.
        dataset: from where.
        crops_dir: the folder of all packed crops.
    """

    def __init__(self, recipe: Recipe, dataset: TrackingDataset, crops_dir: str | Path):
        self.recipe = recipe
        self.folder = folder_of(crops_dir, recipe.dataset)
        self._dataset = dataset
        self._views = [(view, getattr(recipe, view), cover(getattr(recipe, view), recipe.quantile)) for view in VIEWS]
        self._pixels = FramePixels(recipe.template.size, recipe.search.size)
        self._lengths = np.empty(len(dataset), np.int32)
        self._plan: list[list[tuple[int, np.ndarray]]] = [[]]
        self._make_plan()

    @property
    def frames(self) -> int:
        """How many frames will be stored."""
        return sum(len(frames) for part in self._plan for _, frames in part)

    def estimate(self) -> int:
        """Bytes that all crops will take, from a few frames spread over the data set."""
        planned = [(sequence, frames) for part in self._plan for sequence, frames in part]
        ends = np.cumsum([len(frames) for _, frames in planned])
        chosen = np.arange(0, self.frames, max(1, self.frames // ESTIMATE_FRAMES))
        sizes = []
        for position, number in zip(chosen, np.searchsorted(ends, chosen, side="right"), strict=True):
            sequence, frames = planned[number]
            try:
                pictures = self._pictures(sequence, int(frames[position - ends[number]]))[1]
            except Unreadable:
                continue
            if pictures is not None:
                sizes.append(sum(len(data) for _, data in pictures))
        if not sizes:
            raise UserError(f"data set {self.recipe.dataset}: none of {len(chosen)} frames tried can be packed; check "
                            "the data set")
        return round((np.mean(sizes) + RECORD.itemsize) * self.frames)

    def run(self, workers: int, max_unreadable: float) -> Path:
        """Pack, or go on with a packing that was interrupted. Returns the folder.

        Args:
            workers: processes; 0 works in this one.
            max_unreadable: share of the frames that may be left out because they cannot be read.

        Raises:
            UserError: the folder holds crops of other settings, the disk is too small or fills up, or too many images
                are unreadable. What is complete stays, and the same call goes on with the rest.
        """
        if self._is_finished():
            logger.info("%s: already packed in %s", self.recipe.dataset, self.folder)
            return self.folder
        with own(self.folder):
            return self._pack(workers, max_unreadable)

    def _pack(self, workers: int, max_unreadable: float) -> Path:
        self._check_disk()
        write_text(self.folder / RECIPE, self._identity())
        waiting = [number for number in range(len(self._plan)) if not self._index_file(number).is_file()]
        failures: list[str] = []
        tried = 0
        done = self.frames - sum(map(self._planned, waiting))
        with Progress(self.frames, f"pack {self.recipe.dataset}", "frames", done) as progress:
            for number, files in self._written(waiting, workers):
                tried += self._planned(number)
                failures += files
                progress.advance(self._planned(number))
                if too_many(len(failures), tried, max_unreadable):
                    raise UserError(
                        f"{len(failures)} of {tried} images of {self.recipe.dataset} cannot be read, more than "
                        f"DATA.MAX_UNREADABLE ({max_unreadable:.1%}) allows: {'; '.join(failures[:3])}")
        return self._finish()

    def _written(self, numbers: Sequence[int], workers: int) -> Iterator[tuple[int, list[str]]]:
        """Write parts; what `write_part` returns, in order."""
        if workers == 0:
            yield from map(self.write_part, numbers)
            return
        with ProcessPoolExecutor(workers, initializer=_adopt, initargs=(self,)) as pool:
            try:
                yield from pool.map(_write_adopted, numbers)
            except BrokenProcessPool as error:
                raise UserError(f"packing {self.recipe.dataset}: the system killed a working process, mostly for want "
                                "of memory; use fewer --workers. What is complete stays.") from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _make_plan(self) -> None:
        """Which frames go into which part: whole sequences, at least `PART_FRAMES` frames in each but the last."""
        count = 0
        for sequence in range(len(self._dataset)):
            visible = self._dataset.annotation(sequence).visible
            self._lengths[sequence] = len(visible)
            frames = np.flatnonzero(visible).astype(np.int32)
            if self._dataset.is_video:
                frames = frames[frames % self.recipe.stride == 0]
            if count >= PART_FRAMES:
                self._plan.append([])
                count = 0
            if len(frames):
                self._plan[-1].append((sequence, frames))
                count += len(frames)
        if not self.frames:
            raise UserError(f"data set {self.recipe.dataset} has no visible frame to pack")

    def _identity(self) -> str:
        """What a packing that goes on must agree in: the settings and the planned frames."""
        digest = hashlib.sha256(self._lengths.tobytes())
        for part in self._plan:
            for sequence, frames in part:
                digest.update(np.int64(sequence).tobytes() + frames.tobytes())
        return json.dumps({"format": FORMAT, **self.recipe.to_dict(), "plan": digest.hexdigest()}, indent=1)

    def _is_finished(self) -> bool:
        recipe = self.folder / RECIPE
        if recipe.is_file() and recipe.read_text(encoding="utf-8") != self._identity():
            raise UserError(f"{self.folder} holds crops that were made with other settings or of other frames (see "
                            f"{recipe}); use those, or delete the folder, or set another COMPRESSTRACKER_CROPS_DIR")
        return (self.folder / MANIFEST).is_file()

    def _check_disk(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = sum(file.stat().st_size for file in self.folder.iterdir())
        need, free = self.estimate() - stored, shutil.disk_usage(self.folder).free
        logger.info("%s: %d frames in %d parts, about %.2f GB in %s (%.1f GB free)", self.recipe.dataset, self.frames,
                    len(self._plan), (need + stored) / 1e9, self.folder, free / 1e9)
        if need * _SPARE > free:
            raise UserError(f"packing {self.recipe.dataset} needs about {need / 1e9:.1f} GB in {self.folder}, where "
                            f"{free / 1e9:.1f} GB are free: free some, set COMPRESSTRACKER_CROPS_DIR to another disk, "
                            "or store fewer frames (--stride) or smaller ones (--quality, --max_side)")

    def _planned(self, number: int) -> int:
        return sum(len(frames) for _, frames in self._plan[number])

    def _index_file(self, number: int) -> Path:
        return self.folder / f"{part_name(number)}.npy"

    def write_part(self, number: int) -> tuple[int, list[str]]:
        """Write a part and then its index. Returns its number and the files that cannot be read."""
        records: list[tuple] = []
        failures: list[str] = []
        with atomic_write(self.folder / part_name(number)) as temporary, open(temporary, "wb") as file:
            for sequence, frames in self._plan[number]:
                boxes = self._dataset.annotation(sequence).boxes
                for frame in frames:
                    try:
                        size, pictures = self._pictures(sequence, int(frame))
                    except Unreadable as error:
                        logger.warning("%s; the frame is left out", error)
                        failures.append(error.file)
                        continue
                    if pictures is None:
                        continue
                    places = []
                    for place, data in pictures:
                        places.append((file.tell(), len(data), *place))
                        file.write(data)
                    records.append((sequence, frame, number, *size, boxes[frame], *places))
        with atomic_write(self._index_file(number)) as temporary, open(temporary, "wb") as file:
            np.save(file, np.array(records, RECORD))
        return number, failures

    def _pictures(self, sequence: int, frame: int
                  ) -> tuple[tuple[int, int], list[tuple[tuple[int, int, int, int], bytes]] | None]:
        """Size of a frame, and for each view its place in it and the encoded picture; None where the target lies
        outside the frame."""
        picture = self._pixels.open(self._dataset, sequence, [frame])[0]
        box = self._dataset.annotation(sequence).boxes[frame]
        size = (picture.width, picture.height)
        places = [_place(box, covered, size) for _, _, covered in self._views]
        if any(width < 1 or height < 1 for _, _, width, height in places):
            return size, None
        left, top = (min(place[axis] for place in places) for axis in (0, 1))
        right, bottom = (max(place[axis] + place[axis + 2] for place in places) for axis in (0, 1))
        with unreadable(self._dataset.frame_path(sequence, frame)):
            pixels = picture.region(left, top, right, bottom)
        return size, [(place, self._encode(pixels[place[1] - top :][: place[3], place[0] - left :][:, : place[2]],
                                           view, box))
                      for place, (_, view, _) in zip(places, self._views, strict=True)]

    def _encode(self, pixels: np.ndarray, view: View, box: np.ndarray) -> bytes:
        """A JPEG file of a place's pixels, at the scale of the crop of an unjittered box or at their own."""
        height, width = pixels.shape[:2]
        crop_scale = view.size / (view.factor * math.sqrt(float(box[2]) * float(box[3])))
        scale = min(1.0, self.recipe.density * crop_scale, self.recipe.max_side / max(width, height))
        if scale < 1:
            target = max(1, round(width * scale)), max(1, round(height * scale))
            pixels = cv2.resize(pixels, target)  # as crops are reduced: pixels skipped, not averaged
        return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), self.recipe.quality, "RGB", "420")

    def _finish(self) -> Path:
        """Join the parts' indices and write the manifest."""
        indices = [np.load(self._index_file(number)) for number in range(len(self._plan))]
        records = np.concatenate(indices)
        for name, array in ((INDEX, records), (LENGTHS, self._lengths)):
            with atomic_write(self.folder / name) as temporary, open(temporary, "wb") as file:
                np.save(file, array)
        parts = [(self.folder / part_name(number)).stat().st_size for number in range(len(self._plan))]
        recipe = self.recipe
        manifest = {
            "format": FORMAT, "dataset": recipe.dataset, "name": self._dataset.name,
            "is_video": self._dataset.is_video, "sequences": len(self._lengths), "frames": len(records),
            "left_out": self.frames - len(records), "bytes": sum(parts), "parts": parts, "stride": recipe.stride,
            "quality": recipe.quality, "density": recipe.density, "max_side": recipe.max_side,
            "quantile": recipe.quantile,
            "views": {name: view._asdict() for name, view, _ in self._views},
            "cover": {name: round(covered, 4) for name, _, covered in self._views},
        }
        write_text(self.folder / MANIFEST, json.dumps(manifest, indent=1))
        for number in range(len(self._plan)):
            self._index_file(number).unlink()
        logger.info("%s: %d frames of %d sequences packed, %.2f GB in %s", recipe.dataset, len(records),
                    len(self._lengths), sum(parts) / 1e9, self.folder)
        return self.folder


def _place(box: np.ndarray, covered: float, frame: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of what is stored of a frame around a box: a square, as far as the frame goes."""
    x, y, w, h = (float(v) for v in box)
    side = math.ceil(math.sqrt(w * h) * covered) + 2 * _MARGIN
    start = math.floor(x + w / 2 - side / 2), math.floor(y + h / 2 - side / 2)
    first = [max(0, position) for position in start]
    last = [min(length, position + side) for position, length in zip(start, frame, strict=True)]
    return first[0], first[1], last[0] - first[0], last[1] - first[1]


_packing: Packing | None = None


def _adopt(packing: Packing) -> None:
    """What every packing process works on, handed over once."""
    global _packing
    _packing = packing
    cv2.setNumThreads(0)


def _write_adopted(number: int) -> tuple[int, list[str]]:
    return _packing.write_part(number)
