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
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.utils.box_files import LABEL_FILES, read_boxes, read_names, read_visibility
from lib.utils.errors import UserError
from lib.utils.files import ROOT, resolve
from lib.utils.frames import (
    IMAGE_FOLDERS,
    VIDEO_SUFFIXES,
    FrameSource,
    ImageFrames,
    VideoFrames,
    natural_key,
    open_frames,
)

logger = logging.getLogger(__name__)

BOX_FILES = ("groundtruth_rect.txt", "groundtruth.txt")
LAYOUT = (
    "expected one folder per sequence with pictures (in img/, imgs/, color/, images/, frames/ or the folder itself) or "
    "one video file, and a box file groundtruth_rect.txt, groundtruth.txt or <sequence>.txt with a line x,y,w,h per "
    "frame"
)


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
    boxes = {*BOX_FILES, f"{folder.name}.txt", *LABEL_FILES}
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
