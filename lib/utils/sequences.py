"""Folders of sequences: frames as pictures or as one video, and one box file.

One folder per sequence::

    <folder>/<sequence>/img/*.jpg            (or imgs/, color/, images/, frames/, or the pictures in the folder itself)
    <folder>/<sequence>/<any name>.mp4       (or one video file: mp4, avi, mpg, mpeg, mkv, mov)
    <folder>/<sequence>/groundtruth_rect.txt (or groundtruth.txt, or <sequence>.txt)

One line ``x,y,w,h`` per frame in pixels, separated by commas, tabs or spaces; ``NaN`` where the target is absent. The
label files of GOT-10k (absence.label, cover.label) and LaSOT (full_occlusion.txt, out_of_view.txt) are read when there.
"""

import logging
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lib.utils.errors import UserError
from lib.utils.files import ROOT, resolve
from lib.utils.images import read_rgb

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mpg", ".mpeg", ".mkv", ".mov")
IMAGE_FOLDERS = ("img", "imgs", "color", "images", "frames")
BOX_FILES = ("groundtruth_rect.txt", "groundtruth.txt")
LAYOUT = (
    "expected one folder per sequence with pictures (in img/, imgs/, color/, images/, frames/ or the folder itself) or "
    "one video file, and a box file groundtruth_rect.txt, groundtruth.txt or <sequence>.txt with a line x,y,w,h per "
    "frame"
)


class FrameSource(ABC):
    """The frames of a sequence: ``len(source)``, ``source[i]`` (RGB uint8 (H, W, 3)), ``source.path(i)``.

    Reading starts lazily in each process, so a source can be pickled and survives a fork.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> np.ndarray: ...

    @abstractmethod
    def path(self, index: int) -> str:
        """Where frame `index` comes from: the picture's file, or the video's file."""

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open
        """Free what reading holds open; a later read opens it again."""

    def _checked(self, index: int) -> int:
        """`index` counted from the start; IndexError ends iteration as for any sequence."""
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"frame {index} of {length}")
        return index % length


class ImageFrames(FrameSource):
    """Picture files in the given order."""

    def __init__(self, folder: str | Path, names: Iterable[str]):
        self.folder = str(folder)
        self.names = list(names)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        return os.path.join(self.folder, self.names[index])

    def __getitem__(self, index: int) -> np.ndarray:
        index = self._checked(index)
        try:
            return read_rgb(self.path(index))
        except UserError as error:
            raise UserError(f"frame {index} (counted from 0): {error}") from error


class NumberedFrames(ImageFrames):
    """Picture files whose names have consecutive numbers; nothing is listed, so a source costs no look at the disk.

    Args:
        folder: where the pictures are.
        template: a file's name for `str.format` with the number as `frame`, as in {frame:08d}.jpg.
        first: number of the first frame.
        count: number of frames.
    """

    def __init__(self, folder: str | Path, template: str, first: int, count: int):
        self.folder = str(folder)
        self.template = template
        self.first = first
        self.count = count

    def __len__(self) -> int:
        return self.count

    def path(self, index: int) -> str:
        return os.path.join(self.folder, self.template.format(frame=self.first + index))


class VideoFrames(FrameSource):
    """The frames of one video file.

    Reading forward decodes each frame once; reading backward starts the file again, since seeking by frame number is
    not exact in every container. The length is what the container states until `count_exactly` is called.
    """

    def __init__(self, file: str | Path, length: int | None = None):
        self.file = str(file)
        self._length = length
        self._end: int | None = None
        """Number of frames that can be read, once reading has come to it."""
        self._readers: dict[int, list] = {}
        """Process id -> [capture, index of its next frame, last frame]; a reader is never shared across a fork."""

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_readers": {}}

    def __len__(self) -> int:
        if self._length is None:
            capture = self._open()
            self._length = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            capture.release()
            if self._length == 0:
                self.count_exactly()
        return self._length

    def count_exactly(self) -> int:
        """Count the frames by running through the file, and keep that as the length."""
        capture, count = self._open(), 0
        while capture.grab():
            count += 1
        capture.release()
        self._length = count
        return count

    def path(self, index: int) -> str:
        return self.file

    def __getitem__(self, index: int) -> np.ndarray:
        index = self._checked(index)
        if self._end is not None and index >= self._end:
            raise self._ended(index)
        reader = self._readers.get(os.getpid())
        if reader is not None and reader[1] == index + 1:
            return reader[2].copy()
        if reader is None or reader[1] > index:
            self.close()
            reader = self._readers[os.getpid()] = [self._open(), 0, None]
        capture = reader[0]
        while reader[1] < index and capture.grab():
            reader[1] += 1
        ok, image = capture.read() if reader[1] == index else (False, None)
        if not ok:
            self._end = reader[1]
            self.close()
            raise self._ended(index)
        reader[1:] = [index + 1, cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)]
        return image.copy()

    def _ended(self, index: int) -> UserError:
        return UserError(f"cannot read frame {index} (counted from 0) of the video {self.file}: it ends or is damaged "
                         f"after {self._end} frames")

    def close(self) -> None:
        reader = self._readers.pop(os.getpid(), None)
        if reader is not None:
            reader[0].release()

    def _open(self) -> cv2.VideoCapture:
        if not os.path.isfile(self.file):
            raise UserError(f"video not found: {self.file}")
        capture = cv2.VideoCapture(self.file)
        if not capture.isOpened():
            raise UserError(f"cannot open the video {self.file}: it is damaged or its codec is unknown to OpenCV")
        return capture


@dataclass
class SequenceFiles:
    """One sequence of a folder."""

    name: str
    frames: FrameSource
    boxes: np.ndarray
    """(N, 4) float64 xywh in pixels, N = len(frames); NaN where the target is absent or the box is not known."""
    box_file: Path
    visible: np.ndarray | None = None
    """(N,) bool from the label files of GOT-10k or LaSOT; None when there are none."""


def natural_key(name: str) -> list:
    """Sort key that puts img2 before img10."""
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def open_frames(path: str | Path) -> FrameSource:
    """The frames of a video file, of a folder of pictures, or of a sequence folder.

    Raises:
        UserError: there is nothing to read.
    """
    path = Path(path)
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoFrames(path)
    if not path.is_dir():
        raise UserError(f"no video file and no folder of frames: {path}; videos end in {' '.join(VIDEO_SUFFIXES)}")
    frames = _frames_in(path)
    if frames is None:
        raise UserError(f"no frames in {path}: neither pictures ({' '.join(IMAGE_SUFFIXES)}) nor a video file "
                        f"({' '.join(VIDEO_SUFFIXES)})")
    return frames


def parse_boxes(text: str, name: str) -> np.ndarray:
    """Boxes of a box file's text: one line x,y,w,h per frame, separated by commas, tabs or spaces.

    Args:
        text: the file's content.
        name: the file's name for messages.

    Returns:
        (N, 4) float64; NaN in all four where a line holds NaN or a size that is not positive (the target is absent).

    Raises:
        UserError: there is no line, or a line does not hold four numbers.
    """
    lines = text.rstrip().splitlines()
    rows = [line.replace(",", " ").split() for line in lines]
    try:
        boxes = np.array(rows, dtype=np.float64)
    except ValueError:
        boxes = np.empty(0)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        bad = next((i for i, row in enumerate(rows) if not _four_numbers(row)), 0)
        found = repr(lines[bad][:60]) if lines else "an empty file"
        raise UserError(f"{name}, line {bad + 1}: expected four numbers x,y,w,h, found {found}")
    return absent_as_nan(boxes)


def absent_as_nan(boxes_xywh: np.ndarray) -> np.ndarray:
    """(N, 4) boxes with NaN in all four numbers, in place, where one is not finite or a size is not positive."""
    absent = ~(np.isfinite(boxes_xywh).all(axis=1) & (boxes_xywh[:, 2] > 0) & (boxes_xywh[:, 3] > 0))
    boxes_xywh[absent] = np.nan
    return boxes_xywh


def read_boxes(path: str | Path) -> np.ndarray:
    """Read a box file: see :func:`parse_boxes`."""
    return parse_boxes(read_text(path, "box file"), str(path))


def _four_numbers(row: list[str]) -> bool:
    try:
        return len([float(value) for value in row]) == 4
    except ValueError:
        return False


def read_text(path: str | Path, what: str) -> str:
    """The text of a file; UserError naming `what` it is where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the {what} {path}: {error}") from error


def visibility(read: Callable[[str], str | None], where: str, count: int) -> np.ndarray | None:
    """Visibility of `count` frames from the label files of GOT-10k or LaSOT in a sequence folder.

    GOT-10k: visible where absence.label is 0 and cover.label is above 0. LaSOT: visible where neither
    full_occlusion.txt nor out_of_view.txt is set. A file that is not there says nothing.

    Args:
        read: gives the text of a file of the sequence folder by name, None where it is missing.
        where: the sequence folder's name for messages.
        count: number of boxes.

    Returns:
        (count,) bool, or None when there is no label file.

    Raises:
        UserError: a label file holds something else than whole numbers, or fewer than `count`.
    """
    visible = None
    for name, seen_when_set in _LABEL_FILES.items():
        text = read(name)
        if text is None:
            continue
        try:
            labels = np.array(text.replace(",", " ").split(), dtype=np.int64)
        except ValueError as error:
            raise UserError(f"{where}/{name}: expected one whole number per frame ({error})") from error
        if len(labels) < count:
            raise UserError(f"{where}/{name} holds {len(labels)} labels for {count} boxes")
        good = (labels[:count] > 0) == seen_when_set
        visible = good if visible is None else visible & good
    return visible


_LABEL_FILES = {"absence.label": False, "cover.label": True, "full_occlusion.txt": False, "out_of_view.txt": False}


def read_visibility(folder: str | Path, count: int) -> np.ndarray | None:
    """:func:`visibility` of a sequence folder on disk."""

    def read(name: str) -> str | None:
        path = Path(folder) / name
        return read_text(path, "label file") if path.is_file() else None

    return visibility(read, str(folder), count)


def read_names(path: str | Path) -> list[str]:
    """Names of sequences from a list file: one per line, empty lines and lines that start with # left out."""
    lines = [line.strip() for line in read_text(path, "list of sequences").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def find_in_spec(spec: str, base: Path = ROOT) -> list[SequenceFiles]:
    """Sequences of ``<folder>[@<list file>]``, as in ``FOLDER:`` of a yaml and ``folder:`` of the command line.

    Args:
        spec: folder, and optionally a file with the names to use. A relative list file is looked for from `base`, then
            in the folder.
        base: what a relative folder starts from.
    """
    return [open_sequence(name, path) for name, path in locate_in_spec(spec, base).items()]


def locate_in_spec(spec: str, base: Path = ROOT) -> dict[str, Path]:
    """Name -> folder of the sequences that :func:`find_in_spec` opens."""
    folder, mark, list_file = spec.rpartition("@")
    if not mark or resolve(spec, base).is_dir():
        return locate_sequences(resolve(spec, base))
    path = resolve(list_file, base)
    if not path.is_file() and (resolve(folder, base) / list_file).is_file():
        path = resolve(folder, base) / list_file
    return locate_sequences(resolve(folder, base), read_names(path))


def find_sequences(folder: str | Path, names: Iterable[str] | None = None) -> list[SequenceFiles]:
    """All sequences of a folder in natural name order, or those called `names` in that order.

    A folder that has frames and a box file is a sequence; others are searched down to two levels (LaSOT keeps sequences
    in class folders). The name is the sequence folder's, with its parents' where two are called the same.

    Raises:
        UserError: the folder is missing or holds no sequence, a name is not there, or frames and boxes do not match:
            fewer frames than boxes. (With more frames than boxes the rest is left out with a warning, unless there is
            only the first box as in GOT-10k's test set.)
    """
    return [open_sequence(name, path) for name, path in locate_sequences(folder, names).items()]


def locate_sequences(folder: str | Path, names: Iterable[str] | None = None) -> dict[str, Path]:
    """Name -> folder of the sequences that :func:`find_sequences` opens.

    Raises:
        UserError: the folder is missing or holds no sequence, or a name is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"folder of sequences not found: {folder}; {LAYOUT}")
    if names is not None:
        names = list(names)
        direct = {name: folder / name for name in names if (folder / name).is_dir()}
        found = direct if len(direct) == len(set(names)) else _named(folder)
        missing = [name for name in names if name not in found]
        if missing:
            raise UserError(f"{len(missing)} of {len(names)} listed sequences are not in {folder}: "
                            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}")
        chosen = {name: found[name] for name in names}
    else:
        chosen = _named(folder)
    if not chosen:
        raise UserError(f"no sequence in {folder}; {LAYOUT}")
    return chosen


def _named(folder: Path) -> dict[str, Path]:
    """Name -> folder of every sequence in `folder`."""
    paths = list(_sequence_folders(folder, depth=2))
    uses = Counter(path.name for path in paths)
    return {path.name if uses[path.name] == 1 else "_".join(path.relative_to(folder).parts): path for path in paths}


def _sequence_folders(folder: Path, depth: int) -> Iterable[Path]:
    """Folders with a box file, `folder` itself first."""
    if _box_file(folder) is not None:
        yield folder
    elif depth:
        with os.scandir(folder) as entries:
            inner = sorted((entry.name for entry in entries if entry.is_dir()), key=natural_key)
        for name in inner:
            yield from _sequence_folders(folder / name, depth - 1)


def _box_file(folder: Path) -> Path | None:
    return next((folder / n for n in (*BOX_FILES, f"{folder.name}.txt") if (folder / n).is_file()), None)


def sequence_parts(folder: Path) -> list[str]:
    """The files and folders in a sequence folder, itself included, on whose state its frames and boxes depend."""
    boxes = {*BOX_FILES, f"{folder.name}.txt", *_LABEL_FILES}
    with os.scandir(folder) as entries:
        inner = sorted(entry.path for entry in entries
                       if entry.name in boxes or entry.name in IMAGE_FOLDERS
                       or entry.name.lower().endswith(VIDEO_SUFFIXES))
    return [str(folder), *inner]


def open_sequence(name: str, folder: Path) -> SequenceFiles:
    """The sequence in a folder.

    Raises:
        UserError: it has no box file or no frames, or they do not match.
    """
    box_file = _box_file(folder)
    if box_file is None:
        raise UserError(f"no box file in {folder}; {LAYOUT}")
    frames = open_frames(folder)
    boxes = read_boxes(box_file)
    count = len(frames)
    if count != len(boxes) and isinstance(frames, VideoFrames):
        count = frames.count_exactly()
    if len(boxes) == 1 < count:
        boxes = np.concatenate([boxes, np.full((count - 1, 4), np.nan)])
        return SequenceFiles(name, frames, boxes, box_file)
    frames = match_frames(frames, len(boxes), box_file)
    return SequenceFiles(name, frames, boxes, box_file, read_visibility(folder, len(boxes)))


def match_frames(frames: FrameSource, count: int, box_file: str | Path) -> FrameSource:
    """`frames` cut, with a warning, to the `count` boxes of a box file.

    Raises:
        UserError: there are fewer frames than boxes.
    """
    place = os.path.dirname(frames.path(0))
    if len(frames) < count:
        raise UserError(f"{box_file} holds {count} boxes but there are only {len(frames)} frames in {place}; frames "
                        "are missing, or the box file belongs to another sequence")
    if len(frames) > count:
        logger.warning("%s: %d frames but %d boxes; the last %d frames are left out",
                       place, len(frames), count, len(frames) - count)
        frames = _shortened(frames, count)
    return frames


def _shortened(frames: FrameSource, count: int) -> FrameSource:
    if isinstance(frames, VideoFrames):
        return VideoFrames(frames.file, count)
    return ImageFrames(frames.folder, frames.names[:count])


def _frames_in(folder: Path) -> FrameSource | None:
    """Pictures of a known sub-folder, pictures of the folder, or its video; None without any."""
    for candidate in (*(folder / name for name in IMAGE_FOLDERS), folder):
        if not candidate.is_dir():
            continue
        names = [name for name in os.listdir(candidate) if name.lower().endswith(IMAGE_SUFFIXES) and name[0] != "."]
        if names:
            return ImageFrames(candidate, sorted(names, key=natural_key))
    videos = sorted(name for name in os.listdir(folder) if name.lower().endswith(VIDEO_SUFFIXES) and name[0] != ".")
    if len(videos) > 1:
        videos = [name for name in videos if name != "truth.mp4"]
    if len(videos) > 1:
        raise UserError(f"several videos in {folder}: {', '.join(videos)}; keep one per sequence")
    return VideoFrames(folder / videos[0]) if videos else None
