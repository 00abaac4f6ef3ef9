"""The frames of a sequence or film: picture files, or one video file."""

import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from .errors import UserError
from .images import Look, decode_rgb, look_at
from .storage import DISK, DirectoryStorage, Storage, joined

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mpg", ".mpeg", ".mkv", ".mov", ".m4v", ".webm", ".wmv", ".asf", ".flv", ".f4v",
                  ".ts", ".mts", ".m2ts", ".vob", ".3gp", ".ogv", ".mxf", ".divx", ".m1v", ".m2v", ".mpe", ".mjpg",
                  ".mjpeg", ".y4m")
"""What a folder is looked through for; a file that is named itself may end in anything that OpenCV opens."""
IMAGE_FOLDERS = ("img", "imgs", "color", "images", "frames")


_COPY_MARK = re.compile(r"(?: \(\d+\)| - copy(?: \(\d+\))?|[-_ ]copy)(?=\.\w+$)")
"""What file managers and browsers add to the name of a copy."""


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

    def look(self, index: int = 0) -> Look:
        """What is known of frame `index`, its width and height first, as ``source[index]`` has them.

        Raises:
            UserError: it cannot be read.
        """
        return Look(self[index].shape[1::-1])

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open
        """Free what reading holds open; a later read opens it again."""

    def _checked(self, index: int) -> int:
        """`index` counted from the start; IndexError ends iteration as for any sequence."""
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"frame {index} of {length}")
        return index % length


class ImageFrames(FrameSource):
    """Picture files in the given order.

    Args:
        folder: where they are.
        names: of the files in it.
        storage: where the folder is.
    """

    def __init__(self, folder: str | Path, names: Iterable[str], storage: Storage = DISK):
        self.folder = str(folder)
        self.names = list(names)
        self.storage = storage

    def __len__(self) -> int:
        return len(self.names)

    def file(self, index: int) -> str:
        """Name of a picture in the storage."""
        return joined(self.folder, self.names[index])

    def path(self, index: int) -> str:
        return self.storage.locate(self.file(index))

    def __getitem__(self, index: int) -> np.ndarray:
        index = self._checked(index)
        try:
            return decode_rgb(self.storage.read(self.file(index)), self.path(index))
        except UserError as error:
            raise UserError(f"frame {index} (counted from 0): {error}") from error

    def look(self, index: int = 0) -> Look:
        return look_at(partial(self.storage.read, self.file(index)), self.path(index))


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
        self.storage = DISK
        self.template = template
        self.first = first
        self.count = count

    def __len__(self) -> int:
        return self.count

    def file(self, index: int) -> str:
        return joined(self.folder, self.template.format(frame=self.first + index))


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
        self._seconds: dict[int, float] = {}
        """Time stamps of the frames that were read."""
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

    def reads_on(self) -> bool:
        """Whether the film has a frame behind its length, which is one more then: some containers only estimate it."""
        self._length = len(self) + 1
        try:
            self[-1]
        except UserError:
            self._length -= 1
            return False
        return True

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
        self._seconds[index] = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        reader[1:] = [index + 1, cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)]
        return image.copy()

    def seconds(self, index: int) -> float | None:
        """When a frame that was read is shown, by the time stamps of the film; None where it has none of it."""
        return self._seconds.get(index)

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
            raise UserError(f"cannot open the video {self.file}: it is damaged, no video, or its codec is unknown to "
                            "OpenCV")
        return capture


def natural_key(name: str) -> list:
    """Sort key that puts img2 before img10."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def open_frames(path: str | Path) -> FrameSource:
    """The frames of a video file, of a folder of pictures, or of a sequence folder.

    Raises:
        UserError: there is nothing to read.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise UserError(f"{path} is one picture; name a video file or the folder of the pictures")
        return VideoFrames(path)
    if not path.is_dir():
        raise UserError(f"no video file and no folder of frames: {path} does not exist")
    return frames_in(DirectoryStorage(path))


def picture_names(storage: Storage, folder: str) -> list[str]:
    """Names of the picture files of a folder in natural order, without hidden ones (._1.jpg)."""
    return sorted(filter(is_picture, storage.files(folder)), key=natural_key)


def is_picture(name: str) -> bool:
    """Whether a file is a picture, by its name without the folder."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def pictures_for(names: list[str], count: int | None, place: str) -> list[str]:
    """The pictures that belong to the `count` boxes of a sequence, of all in a folder.

    Pictures of several kinds (1.jpg and 1.png; img1.jpg and 1.jpg; 3.jpg and its copy "3 (1).jpg") stand between each
    other in natural order, so that what follows would be another frame than its box is of. Where their number shows
    that one kind has the boxes it is taken; where it does not, that is an error. So are two pictures for one frame,
    even where there are as many pictures as boxes: another frame is missing then.

    Args:
        names: in natural order.
        count: None where it is not known, and then only two pictures for one frame are an error.
        place: the folder, for messages.

    Raises:
        UserError: it cannot be told which pictures are the frames.
    """
    if count is not None and len(names) < count:
        return names
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(_kind(name), []).append(name)
    if count not in (None, len(names)) and len(kinds) > 1:
        fitting = [kind for kind in kinds.values() if len(kind) == count]
        if len(fitting) == 1:
            left_out = [name for name in names if name not in set(fitting[0])]
            logger.warning("%s: %d pictures but %d boxes; those that are called like %s are taken, the %d others are "
                           "left out (%s)", place, len(names), count, fitting[0][0], len(left_out), _some(left_out))
            return fitting[0]
        groups = ", ".join(f"{len(kind)} like {kind[0]}" for kind in kinds.values())
        raise UserError(f"{place} holds {len(names)} pictures for {count} boxes, in {len(kinds)} kinds: {groups}; "
                        "keep those that the boxes belong to and move the others away")
    main = set(max(kinds.values(), key=len, default=[]))
    seen: dict[tuple, str] = {}
    for name in sorted(names, key=lambda name: name not in main):  # copies behind what they are copies of
        original = name if name in main else _COPY_MARK.sub("", name.lower())
        earlier = seen.setdefault(_number_key(original), name)
        if earlier != name:
            raise UserError(f"{place} holds two pictures for one frame, {earlier} and {name}; keep one of each and "
                            "move the others away" + (", and look which frame is missing: there are as many pictures "
                                                      "as boxes" if count == len(names) else ""))
    return names


def _kind(name: str) -> str:
    """What pictures of one series have in common: the name without its numbers."""
    return re.sub(r"\d+", "#", name.lower())


def _number_key(name: str) -> tuple:
    """The same for 1.jpg, 1.png and 0001.JPG."""
    stem, _ = os.path.splitext(name.lower())
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", stem))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def frames_in(storage: Storage, folder: str = "") -> FrameSource:
    """The frames of a folder of a storage: pictures of a sub-folder that is called as one of `IMAGE_FOLDERS`, its own
    pictures, or its video.

    Raises:
        UserError: there are none, or several videos, or a video that is not on the disk as a file of its own.
    """
    for candidate in (*(joined(folder, name) for name in IMAGE_FOLDERS), folder):
        names = picture_names(storage, candidate)
        if names:
            return ImageFrames(candidate, names, storage)
    videos = [name for name in storage.files(folder) if name.lower().endswith(VIDEO_SUFFIXES) and name[0] != "."]
    if len(videos) > 1:
        videos = [name for name in videos if name != "truth.mp4"]
    if len(videos) > 1:
        raise UserError(f"several videos in {storage.locate(folder)}: {', '.join(videos)}; keep one per sequence")
    if not videos:
        there = [*(f"{name}/" for name in storage.folders(folder)), *storage.files(folder)]
        raise UserError(f"no frames in {storage.locate(folder)}, which holds {_some(there) or 'nothing'}: expected "
                        f"pictures ({' '.join(IMAGE_SUFFIXES)}) there or in a folder {', '.join(IMAGE_FOLDERS)}, or a "
                        f"video file ({' '.join(VIDEO_SUFFIXES)})")
    video = storage.locate(joined(folder, videos[0]))
    if storage.kind != "directory":
        raise video_error(video)
    return VideoFrames(video)


def video_error(video: str) -> UserError:
    """The error for a video that is, or is to be packed, in an archive."""
    return UserError(f"{video}: a video can only be read as a file on the disk, not in an LMDB or a zip archive; keep "
                     "the data set as a folder (DATA.STORAGE: auto takes it), unpack the video to pictures, or leave "
                     "its sequence out by a list file")
