"""Folders of sequences: frames as pictures or as one video, and one box file.

One folder per sequence::

    <folder>/<sequence>/img/*.jpg            (or imgs/, color/, images/, frames/, or the pictures in the folder itself)
    <folder>/<sequence>/<any name>.mp4       (or one video file: mp4, avi, mpg, mpeg, mkv, mov)
    <folder>/<sequence>/groundtruth_rect.txt (or groundtruth.txt, or <sequence>.txt)

One line ``x,y,w,h`` per frame in pixels, separated by commas, semicolons, tabs or spaces; ``NaN`` where the target is
absent. The label files of GOT-10k (absence.label, cover.label) and LaSOT (full_occlusion.txt, out_of_view.txt) are read
when there.
Boxes whose numbers are surely corners or parts of the picture are refused; `FORM_FILE` states such a form.

The folder may be one on the disk or, in training, an archive that looks like one (:mod:`lib.utils.storage`).
"""

import logging
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .box_files import LABEL_FILES, absent_as_nan, parse_boxes, parse_names, read_names, read_visibility
from .box_forms import FORMS, NORMALISED, could_be_corners, suspect_form, to_xywh, why_suspected
from .errors import UserError
from .files import ROOT, resolve
from .frames import (
    IMAGE_FOLDERS,
    VIDEO_SUFFIXES,
    FrameSource,
    ImageFrames,
    NumberedFrames,
    VideoFrames,
    frames_in,
    natural_key,
    picture_names,
    pictures_for,
)
from .images import warn_of_loss
from .storage import DirectoryStorage, Storage, joined

logger = logging.getLogger(__name__)

BOX_FILES = ("groundtruth_rect.txt", "groundtruth.txt")
FORM_FILE = "box_format.txt"
"""States the form of the boxes of a sequence, or of all of a folder, where it is another one than x,y,w,h in pixels."""
LAYOUT = (
    "one folder per sequence with pictures (in img/, imgs/, color/, images/, frames/ or the folder itself) or "
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
    visible: np.ndarray | None = None
    """(N,) bool from the label files of GOT-10k or LaSOT; None when there are none."""
    box_file: str = ""
    """Where the boxes are from, for messages."""
    loss: str = ""
    """What the first picture loses in grey levels: see `lib.utils.images.depth_loss`."""


def find_in_spec(spec: str, base: Path = ROOT) -> list[SequenceFiles]:
    """Sequences of ``<folder>[@<list file>]`` on the disk, as in ``folder:`` of the command line.

    Args:
        spec: folder, and optionally a file with the names to use. A relative list file is looked for from `base`, then
            in the folder.
        base: what a relative folder starts from.
    """
    folder, list_file = split_spec(spec, base)
    storage = _folder(folder)
    return _open_all(storage, listed_names(list_file, folder, storage, base) if list_file else None)


def split_spec(spec: str, base: Path = ROOT, is_there: Callable[[Path], bool] = Path.is_dir) -> tuple[Path, str]:
    """The two parts of ``<path>[@<other path>]``; the second is '' where there is none.

    Args:
        base: what a relative path starts from.
        is_there: whether a path is one that holds an @ itself.
    """
    path, mark, other = spec.rpartition("@")
    return (resolve(spec, base), "") if not mark or is_there(resolve(spec, base)) else (resolve(path, base), other)


def list_on_disk(list_file: str, folder: Path, base: Path = ROOT) -> Path | None:
    """A list file that is looked for from `base`, then in `folder`; None when it is in neither."""
    return next((path for path in (resolve(list_file, base), folder / list_file) if path.is_file()), None)


def listed_names(list_file: str, folder: Path, storage: Storage, base: Path = ROOT) -> list[str]:
    """The names in a list file.

    Args:
        list_file: looked for on the disk (:func:`list_on_disk`), then in the storage.
        folder: of the sequences.
        storage: the folder's files, which may be in an archive.
        base: what a relative list file starts from.

    Raises:
        UserError: it is in none of them, or cannot be read.
    """
    path = list_on_disk(list_file, folder, base)
    if path is not None:
        return read_names(path)
    if storage.has_file(list_file):
        return parse_names(storage.read_text(list_file))
    raise UserError(f"cannot read the list of sequences {resolve(list_file, base)}: there is no such file, nor "
                    f"{list_file} in {storage.root}")


def find_sequences(folder: str | Path, names: Iterable[str] | None = None) -> list[SequenceFiles]:
    """All sequences of a folder on the disk in natural name order, or those called `names` in that order.

    A folder that has frames and a box file is a sequence; others are searched down to two levels (LaSOT keeps sequences
    in class folders). The name is the sequence folder's, with its parents' where two are called the same.

    Raises:
        UserError: the folder is missing or holds no sequence, a name is not there, or frames and boxes do not match:
            fewer frames than boxes. (With more frames than boxes the rest is left out with a warning, unless there is
            only the first box as in GOT-10k's test set.)
    """
    return _open_all(_folder(folder), names)


def _folder(folder: str | Path) -> DirectoryStorage:
    if not Path(folder).is_dir():
        raise UserError(f"folder of sequences not found: {folder}; expected {LAYOUT}")
    return DirectoryStorage(folder)


def _open_all(storage: Storage, names: Iterable[str] | None) -> list[SequenceFiles]:
    sequences = [open_sequence(storage, name, folder) for name, folder in locate_sequences(storage, names).items()]
    for files in sequences:
        warn_of_loss(files.frames.path(0), files.loss)
    return sequences


def locate_sequences(storage: Storage, names: Iterable[str] | None = None, unboxed: list[str] | None = None
                     ) -> dict[str, str]:
    """Name -> folder in the storage ('' for its root) of the sequences that :func:`find_sequences` describes. Listed
    names may be written as paths (``first/``, ``./first``); the one given back is without that.

    Args:
        names: None for all sequences; folders with pictures and without a box file are then left out with a warning.
        unboxed: gets these folders.

    Raises:
        UserError: the storage holds no sequence, or a name is not there.
    """
    left_out: list[str] = [] if unboxed is None else unboxed
    if names is not None:
        names = [posixpath.normpath(name) for name in names]
        direct = {name: name for name in names if is_sequence(storage, name)}
        available = direct if len(direct) == len(set(names)) else _named(storage, []) | direct
        missing = [name for name in names if name not in available]
        if missing:
            causes = [f"{name} ({_why_no_sequence(storage, name)})" for name in missing[:5]]
            raise UserError(f"{len(missing)} of {len(names)} listed sequences are not in {storage.root} (as "
                            f"folders with a box file): {', '.join(causes)}{', ...' if len(missing) > 5 else ''}")
        chosen = {name: available[name] for name in names}
    else:
        chosen = _named(storage, left_out)
        if chosen and left_out:
            logger.warning("%s: %d folders hold pictures and no box file, and are left out: %s%s", storage.root,
                           len(left_out), ", ".join(left_out[:3]), ", ..." if len(left_out) > 3 else "")
    if not chosen:
        cause = f"; {left_out[0] or '.'}: {_why_no_sequence(storage, left_out[0])}" if left_out else ""
        raise UserError(f"no sequence in {storage.root}{cause}; expected {LAYOUT}")
    return chosen


def _why_no_sequence(storage: Storage, folder: str) -> str:
    """Why a folder is no sequence."""
    files = storage.files(folder)
    if not files and not storage.folders(folder):
        return "no such folder"
    texts = [name for name in files if name.lower().endswith((".txt", ".csv", ".json", ".xml"))]
    return f"none of its files is a box file: {', '.join(texts[:3])}" if texts else "no box file"


def _named(storage: Storage, unboxed: list[str]) -> dict[str, str]:
    """Name -> folder of every sequence in a storage; `unboxed` gets the folders with pictures only."""
    folders = list(_sequence_folders(storage, "", 2, unboxed))
    uses = Counter(_name(storage, folder) for folder in folders)
    return {name if uses[name := _name(storage, folder)] == 1 else folder.replace("/", "_"): folder
            for folder in folders}


def _name(storage: Storage, folder: str) -> str:
    return folder.rpartition("/")[2] or storage.name


def _sequence_folders(storage: Storage, folder: str, depth: int, unboxed: list[str]) -> Iterator[str]:
    """Folders with a box file, `folder` itself first; `unboxed` gets those with pictures, without and with none in
    them."""
    if is_sequence(storage, folder):
        yield folder
        return
    has_inner = False
    for name in sorted(storage.folders(folder), key=natural_key) if depth else ():
        for inner in _sequence_folders(storage, joined(folder, name), depth - 1, unboxed):
            has_inner = True
            yield inner
    if not has_inner and posixpath.basename(folder) not in IMAGE_FOLDERS and any(
            picture_names(storage, place) for place in (folder, *(joined(folder, name) for name in IMAGE_FOLDERS))):
        unboxed.append(folder)


def is_sequence(storage: Storage, folder: str) -> bool:
    """Whether there is a box file in a folder of a storage."""
    return _box_file(storage, folder) is not None


def _box_file(storage: Storage, folder: str) -> str | None:
    files = (joined(folder, name) for name in (*BOX_FILES, f"{_name(storage, folder)}.txt"))
    return next((file for file in files if storage.has_file(file)), None)


def sequence_parts(storage: Storage, folder: str) -> list[str]:
    """The files and folders in a sequence folder, itself included, on whose state its frames and boxes depend."""
    relevant = {*BOX_FILES, f"{_name(storage, folder)}.txt", *LABEL_FILES, *IMAGE_FOLDERS}
    inner = [name for name in (*storage.files(folder), *storage.folders(folder))
             if name in relevant or name.lower().endswith(VIDEO_SUFFIXES)]
    forms = [joined(folder, FORM_FILE), FORM_FILE]
    return [folder, *(joined(folder, name) for name in sorted(inner)), *dict.fromkeys(forms)]


def open_sequence(storage: Storage, name: str, folder: str) -> SequenceFiles:
    """The sequence in a folder of a storage.

    Raises:
        UserError: it has no box file or no frames, they do not match, or its boxes are not what they are said to be.
    """
    file = _box_file(storage, folder)
    if file is None:
        raise UserError(f"no box file in {storage.locate(folder)}; expected {LAYOUT}")
    frames = frames_in(storage, folder)
    box_file = storage.locate(file)
    numbers = parse_boxes(storage.read_text(file), box_file, keep=True)
    boxes, loss = own_boxes(numbers, frames, box_file, declared_form(storage, folder))
    count = len(frames)
    if count != len(boxes) and isinstance(frames, VideoFrames):
        count = frames.count_exactly()
    if len(boxes) == 1 < count:
        boxes = np.concatenate([boxes, np.full((count - 1, 4), np.nan)])
        return SequenceFiles(name, _of_boxes(frames, None), boxes, None, box_file, loss)
    frames = match_frames(frames, len(boxes), box_file)
    return SequenceFiles(name, frames, boxes, read_visibility(folder, len(boxes), storage), box_file, loss)


def declared_form(storage: Storage, *folders: str) -> str | None:
    """The form of boxes that a file `FORM_FILE` in one of the folders, or in the storage's root, states; None without.

    Raises:
        UserError: it holds something else than one of `FORMS`.
    """
    for folder in (*folders, ""):
        file = joined(folder, FORM_FILE)
        if storage.has_file(file):
            form = storage.read_text(file).strip()
            if form not in FORMS:
                raise UserError(f"{storage.locate(file)} must hold one of {', '.join(FORMS)}; found {form[:40]!r}")
            return form
    return None


def own_boxes(numbers: np.ndarray, frames: FrameSource, box_file: str, form: str | None) -> tuple[np.ndarray, str]:
    """The boxes of a sequence of one's own in pixels.

    Args:
        numbers: (N, 4) as they stand in the box file.
        frames: of the sequence; the size of the first one counts for all.
        box_file: for messages.
        form: that the data state, one of `FORMS`; None where they state none: then x,y,w,h, unless the numbers
            themselves speak against that.

    Returns:
        (N, 4) float64 xywh, NaN in all four where the target is absent; and what the first picture loses in grey
        levels, see `lib.utils.images.depth_loss`.

    Raises:
        UserError: the numbers are in another form, and nothing states it.
    """
    normalised = form is not None and form.startswith(NORMALISED)
    first = None
    if isinstance(frames, ImageFrames) or normalised or (form is None and could_be_corners(numbers)):
        try:
            first = frames.look()
        except (UserError, IndexError):  # a frame that cannot be read is named when it is tracked or trained on
            if normalised:
                raise
    if form is None:
        require_xywh(numbers, first and first.size, box_file)
    return absent_as_nan(to_xywh(numbers, form or "xywh", first and first.size)), first.loss if first else ""


def require_xywh(numbers: np.ndarray, size: tuple[int, int] | np.ndarray | None, box_file: str) -> None:
    """Refuse boxes that are surely in another form than x,y,w,h in pixels: see `suspect_form`.

    Raises:
        UserError: they are; the message says why, and what to do.
    """
    form = suspect_form(numbers, size)
    if form is not None:
        raise UserError(f"{box_file}: the boxes are not x,y,w,h in pixels: {why_suspected(form, numbers, size)}; write "
                        f"them as x,y,w,h in pixels, or state their form in a file {FORM_FILE} beside them "
                        f"(`{form}`; `xywh` where they are right as they are)")


def no_start(box_file: str, boxes: np.ndarray) -> str:
    """What to say of a sequence (N, 4) whose first frame has no box."""
    boxed = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    remedy = (f"the first box is in line {boxed[0] + 1}: remove the lines and frames before it, so that the sequence "
              "starts there") if len(boxed) else "no line has one: annotate it, or leave the sequence out"
    return f"{box_file}: the first frame has no box to start from; {remedy}"


def match_frames(frames: FrameSource, count: int, box_file: str | Path, own: bool = True) -> FrameSource:
    """`frames` cut, with a warning, to the `count` boxes of a box file.

    Args:
        own: they are data of one's own; in a benchmark it is only a warning when `pictures_for` cannot tell.

    Raises:
        UserError: there are fewer frames than boxes, or it cannot be told which pictures are the frames.
    """
    place = os.path.dirname(frames.path(0))
    if len(frames) < count:
        raise UserError(f"{box_file} holds {count} boxes but there are only {len(frames)} frames in {place}; frames "
                        "are missing, or the box file belongs to another sequence")
    try:
        frames = _of_boxes(frames, count)
    except UserError as error:
        if own:
            raise
        logger.warning("%s", error)
    if len(frames) > count:
        logger.warning("%s: %d frames but %d boxes; the last %d frames are left out",
                       place, len(frames), count, len(frames) - count)
        frames = _shortened(frames, count)
    return frames


def _of_boxes(frames: FrameSource, count: int | None) -> FrameSource:
    """The frames that belong to `count` boxes: see `pictures_for`."""
    if not isinstance(frames, ImageFrames) or isinstance(frames, NumberedFrames):
        return frames
    place = frames.storage.locate(frames.folder)
    return ImageFrames(frames.folder, pictures_for(frames.names, count, place), frames.storage)


def _shortened(frames: FrameSource, count: int) -> FrameSource:
    if isinstance(frames, VideoFrames):
        return VideoFrames(frames.file, count)
    return ImageFrames(frames.folder, frames.names[:count], frames.storage)
