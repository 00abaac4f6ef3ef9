"""Looks through a data set for what would spoil a training: missing or broken files, boxes that do not fit."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...utils.box_forms import suspect_form, why_suspected
from ...utils.errors import UserError
from ...utils.frames import ImageFrames, VideoFrames, frames_in, picture_names
from ...utils.images import look_at
from ...utils.progress import progress
from ...utils.sequences import no_start
from ...utils.threads import map_in_threads
from .base import StoredDataset
from .coco import Coco, other_size
from .folder import Folder

SHOWN = 5
"""Problems of each kind that the report shows."""

MISSING = "missing sequence"
ANNOTATION = "unusable annotation"
LENGTH = "length mismatch"
NO_IMAGE = "missing image"
UNREADABLE = "unreadable image"
DAMAGED = "damaged image"
OUTSIDE = "box outside the frame"
NO_SIZE = "visible target without a box"
FORM = "boxes of another form"
NO_START = "no box in the first frame"
DEPTH = "grey levels lost"
SIZE = "another size than stated"
UNBOXED = "pictures without boxes"


@dataclass
class Problem:
    """Something that is wrong in one sequence."""

    kind: str
    where: str
    detail: str
    count: int = 1
    """Frames that it concerns."""


@dataclass
class Report:
    """What was found in one data set."""

    dataset: str
    root: str
    form: str
    sequences: int = 0
    frames: int = 0
    images: int = 0
    """Pictures that were looked at."""
    video_frames: int = 0
    """Frames of videos, which are all run through."""
    decoded: bool = False
    note: str = ""
    problems: list[Problem] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self) | {"clean": self.clean}

    def text(self) -> str:
        """For a terminal."""
        looked = "decoded" if self.decoded else "their headers read"
        lines = [f"{self.dataset} ({self.form}, {self.root}): {self.sequences} sequences, {self.frames} frames, "
                 f"{self.images} images {looked}"
                 + (f", {self.video_frames} frames of videos run through" if self.video_frames else "")]
        if self.note:
            lines.append(f"  note: {self.note}")
        for kind, number in Counter(problem.kind for problem in self.problems).items():
            of_kind = [problem for problem in self.problems if problem.kind == kind]
            frames = sum(problem.count for problem in of_kind)
            lines.append(f"  {kind}: {number}" + (f" ({frames} frames)" if frames > number else ""))
            lines += [f"    {problem.where}: {problem.detail}" for problem in of_kind[:SHOWN]]
            if number > SHOWN:
                lines.append(f"    ... and {number - SHOWN} more")
        return "\n".join([*lines, "  no problem found" if self.clean else f"  {len(self.problems)} problems"])


def check_dataset(dataset: StoredDataset, *, decode: bool = False, sample: int = 0, threads: int = 8) -> Report:
    """Look through a data set that was opened without its index.

    Args:
        dataset: from :func:`lib.train.dataset.open_dataset`.
        decode: decode the pictures; otherwise only their headers are read.
        sample: pictures of each sequence that are looked at, evenly spread; 0 for all.
        threads: sequences that are looked through at once.

    Raises:
        UserError: there is no sequence at all.
    """
    report = Report(dataset.dataset, dataset.storage.root, dataset.storage.kind, decoded=decode)
    try:
        names = dataset.sequences
    except UserError as error:
        if not (isinstance(dataset, Coco) and dataset.source.has_file(dataset.annotations)):
            raise
        report.problems.append(Problem(ANNOTATION, dataset.annotations, str(error)))
        return report
    report.sequences = len(names)
    report.problems += [Problem(MISSING, name, "it is not there") for name in dataset.missing]
    if isinstance(dataset, Folder):
        report.problems += [Problem(UNBOXED, name, "no box file: it is left out") for name in dataset.unboxed]
    parts_of = _folder_parts if isinstance(dataset, Folder) else _stored_parts

    def look(sequence: int) -> tuple[list[Problem], int, int, int]:
        try:
            parts = parts_of(dataset, sequence)
            images = parts.chosen(sample)
            problems = [*parts.problems, *_look_at(parts, images, decode)]
            return problems, len(parts.boxes), len(images), parts.video_frames
        except UserError as error:
            return [Problem(ANNOTATION, names[sequence], str(error))], 0, 0, 0

    looked = map_in_threads(look, range(len(names)), threads)
    for problems, frames, images, video_frames in progress(looked, len(names), f"check {dataset.dataset}", "sequences"):
        report.problems += problems
        report.frames += frames
        report.images += images
        report.video_frames += video_frames
    report.note = "" if dataset.missing else dataset.note
    return report


@dataclass
class _Parts:
    """One sequence.

    Attributes:
        boxes: (N, 4) xywh, NaN where there is none.
        pictures: frame -> file, of those that are there.
        read: gives the content of a file, or its first bytes.
        stated: size that the annotations give for all pictures.
        any_form: the form of the boxes was not looked at yet.
        problems: found without looking at the pictures.
        video_frames: frames of its video.
    """

    name: str
    boxes: np.ndarray
    pictures: dict[int, str]
    read: Callable[[str, int | None], bytes]
    problems: list[Problem]
    video_frames: int = 0
    stated: tuple[int, int] | None = None
    any_form: bool = False

    def chosen(self, sample: int) -> list[int]:
        """Frames whose pictures are looked at, at most `sample` unless that is 0."""
        frames = list(self.pictures)
        if not sample or len(frames) <= sample:
            return frames
        return [frames[i] for i in np.linspace(0, len(frames) - 1, sample).astype(int)]


def _stored_parts(dataset: StoredDataset, sequence: int) -> _Parts:
    name, storage = dataset.sequences[sequence], dataset.storage
    boxes = dataset.read_annotation(sequence).boxes
    files = dataset.frame_files(sequence, len(boxes))
    folder = files[0].rpartition("/")[0] if files else name
    if dataset.own_folders:
        inside = {f"{folder}/{file}" for file in picture_names(storage, folder)}
        pictures = {frame: file for frame, file in enumerate(files) if file in inside}
    else:
        pictures = {frame: file for frame, file in enumerate(files) if storage.has_file(file)}
        inside = set()
    problems = list(_label_problems(dataset, name, boxes))
    problems += _hidden_problems(name, boxes, dataset.labels(name, len(boxes)))
    absent = len(boxes) - len(pictures)
    if absent:
        example = next((f", for instance {f}" for i, f in enumerate(files) if i not in pictures), f" in {folder}")
        problems.append(Problem(NO_IMAGE, name, f"{absent} of {len(boxes)}{example}", absent))
    elif len(inside) > len(boxes):
        problems.append(Problem(LENGTH, name, f"{len(inside)} pictures for {len(boxes)} boxes"))
    stated = dataset.stated_size(sequence) if isinstance(dataset, Coco) else None
    return _Parts(name, boxes, pictures, storage.read, problems, stated=stated, any_form=dataset.own_folders)


def _folder_parts(dataset: Folder, sequence: int) -> _Parts:
    files = dataset.open(sequence)
    boxes, count = files.boxes, len(files.boxes)
    problems = list(_hidden_problems(files.name, boxes, files.visible))
    if not np.isfinite(boxes[0]).all():
        problems.append(Problem(NO_START, files.name, f"{no_start(files.box_file, boxes)} (training takes the others)"))
    if isinstance(files.frames, ImageFrames):
        unit, readable = "pictures", len(frames_in(dataset.storage, dataset.folders[files.name]))
        pictures = {frame: files.frames.file(frame) for frame in range(count)}
    else:
        video = VideoFrames(files.frames.path(0))
        unit, readable, pictures = "frames in the video", video.count_exactly(), {}
        height, width, _ = video[0].shape
        video.close()
        outside = [f"frame {frame} (counted from 0) {text}" for frame, box in enumerate(boxes)
                   if (text := _outside(box, (width, height)))]
        problems += _of_kind(OUTSIDE, files.name, outside)
    if readable < count:
        problems.append(Problem(UNREADABLE, files.name, f"only {readable} of {count} {unit} can be read",
                                count - readable))
    elif readable > count:
        problems.append(Problem(LENGTH, files.name, f"{readable} {unit} for {count} boxes"))
    return _Parts(files.name, boxes, pictures, dataset.storage.read, problems, 0 if pictures else readable)


def _label_problems(dataset: StoredDataset, name: str, boxes: np.ndarray) -> Iterator[Problem]:
    """Files of labels that are missing or too long (a file that is too short cannot be used at all)."""
    for file in dataset.label_files(name):
        if not dataset.storage.has_file(file):
            yield Problem(LENGTH, name, f"{file} is missing")
            continue
        count = len(dataset.storage.read_text(file).replace(",", " ").split())
        if count != len(boxes):
            yield Problem(LENGTH, name, f"{file} holds {count} labels for {len(boxes)} boxes")


def _hidden_problems(name: str, boxes: np.ndarray, seen: np.ndarray | None) -> Iterator[Problem]:
    """Frames that the labels call visible and that have no box."""
    empty = np.flatnonzero(seen & ~np.isfinite(boxes[:, 0])) if seen is not None else np.empty(0)
    if len(empty):
        yield Problem(NO_SIZE, name, f"{len(empty)} frames, for instance frame {empty[0]} (counted from 0)", len(empty))


def _look_at(parts: _Parts, frames: Sequence[int], decode: bool) -> list[Problem]:
    """Problems of the pictures of `frames` and of the boxes in them; one for each kind."""
    by_kind: dict[str, list[str]] = {}
    size = None
    for frame in frames:
        file, box = parts.pictures[frame], parts.boxes[frame]
        try:
            size, loss, damaged = look_at(partial(parts.read, file), file, decode)
        except UserError as error:
            by_kind.setdefault(UNREADABLE, []).append(str(error))
            continue
        for kind, text in ((DAMAGED, damaged and "holds parts that cannot be decoded and are made up; copy it again"),
                           (DEPTH, loss), (OUTSIDE, _outside(box, size)),
                           (SIZE, parts.stated not in (None, size) and other_size(size, parts.stated))):
            if text:
                by_kind.setdefault(kind, []).append(f"{file} {text}")
    form = suspect_form(parts.boxes, size) if parts.any_form else None
    if form is not None:
        by_kind[FORM] = [f"{form}, not x,y,w,h in pixels: {why_suspected(form, parts.boxes, size)}"]
    return [problem for kind, details in by_kind.items() for problem in _of_kind(kind, parts.name, details)]


def _outside(box_xywh: np.ndarray, size: tuple[int, int]) -> str:
    """What is wrong with a box that has nothing in common with a picture of width and height `size`, or ''."""
    x, y, width, height = (float(value) for value in box_xywh)
    if x + width > 0 and y + height > 0 and x < size[0] and y < size[1] or np.isnan(box_xywh).any():
        return ""
    return f"of {size[0]} x {size[1]} has the box {x:g},{y:g},{width:g},{height:g}"


def _of_kind(kind: str, name: str, details: Sequence[str]) -> list[Problem]:
    """One problem of a sequence for all details of a kind, with the first as the example."""
    suffix = f"; {len(details) - 1} more" if len(details) > 1 else ""
    return [Problem(kind, name, details[0] + suffix, len(details))] if details else []
