"""The benchmarks: one data file in data_specs for each, one reader for all.

A data file is JSON. The keys, of which the last four of the first block and all of the second may be missing::

    title, sources    what it is; where the file's content comes from
    download, layout  for messages: the page to get it from, what the unpacked folder must hold
    field             the environment setting with the folder
    variants          layouts; the first whose box file exists counts. Each has
        boxes         path of the box file below the folder
        frames        paths of the pictures: with {frame:...} numbered files, without it a folder whose pictures count
                      in natural order; the first that exists counts
        format        xywh (default), region or vatic, see `lib.test.evaluation.annotations`
        every         the box file has so many lines for each frame, of which the first counts
        labels        folder of the visibility labels, see `lib.utils.box_files.read_visibility`
    sequences         name -> keys of `Entry`
    list_file, scan   instead of `sequences`: the file with their names; the box files to look for where it is missing
    prefix            what names of sequences begin with in results, but not in paths
    attributes        short name -> name of the challenges that sequences have

    aliases           other names of the benchmark
    dataset           name of its results where another benchmark shares them
    own_folder        results have a folder of their own, since other benchmarks use the same names of sequences
    first_box_only    the boxes after the first frame are kept secret (test servers)
    absent_is_unseen  a frame without a box counts as labelled not visible
    class_in_name     the object's class is the name of a sequence up to its last hyphen
    base, names       another benchmark whose keys hold here too, and the sequences of it to take

Paths may use {name}, {folder} and {group} (the name up to its last hyphen) of a sequence; `boxes` may hold a * for any
folder, and `frames` may use {beside}, the folder of the box file.
"""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...utils.box_files import read_names, read_text, read_visibility
from ...utils.errors import UserError
from ...utils.frames import FrameSource, NumberedFrames, natural_key, open_frames
from ...utils.images import warn_of_loss
from ...utils.sequences import declared_form, match_frames, own_boxes
from ...utils.storage import DirectoryStorage
from .annotations import READERS
from .sequence import Sequence

SPECS = Path(__file__).parent / "data_specs"
OBJECT_FILES = "groundtruth_*.txt"
"""Box files of a sequence with several objects, in VOTS."""
SHOWN = 5
"""Missing sequences that a message names."""


@dataclass(frozen=True)
class Variant:
    """One way in which a benchmark's folder can be laid out; the keys are explained above."""

    boxes: str
    frames: tuple[str, ...]
    format: str = "xywh"
    every: int = 1
    labels: str = ""


@dataclass(frozen=True)
class Entry:
    """What the data file says about one sequence."""

    first: int = 1
    """Number of the first annotated frame in the names of numbered pictures."""
    last: int | None = None
    """Number of the last one; None when it goes by the box file."""
    skip: int = 0
    """Annotated frames at the start that are not tracked."""
    folder: str = ""
    """The sequence's folder, where it is not called like the sequence."""
    boxes: str = ""
    """Instead of the variant's."""
    frames: str = ""
    """Instead of the variant's."""
    object_class: str = ""
    attributes: str = ""
    """Short names, separated by spaces."""

    @property
    def length(self) -> int | None:
        """Number of annotated frames; None when it goes by the box file."""
        return None if self.last is None else self.last - self.first + 1


@dataclass(frozen=True)
class Spec:
    """The content of a benchmark's data file."""

    title: str
    sources: list[str]
    download: str
    field: str
    layout: str
    dataset: str
    variants: tuple[Variant, ...]
    sequences: dict[str, Entry] = field(default_factory=dict)
    list_file: str = ""
    scan: str = ""
    prefix: str = ""
    aliases: tuple[str, ...] = ()
    own_folder: bool = False
    first_box_only: bool = False
    absent_is_unseen: bool = False
    class_in_name: bool = False
    attributes: dict[str, str] = field(default_factory=dict)


class Benchmark(NamedTuple):
    """How to find and read one data set."""

    title: str
    dataset: str
    """What `Sequence.dataset` says."""
    field: str
    """The environment setting with the data set's folder."""
    layout: str
    """What that folder must hold, for error messages."""
    download: str
    """The page to get it from."""
    names: Callable[[Path], list[str]]
    """Folder -> names of all sequences. OSError when the folder must be looked into and is not there."""
    read: Callable[[Path, list[str]], list[Sequence]]
    """Folder and names -> the sequences. UserError when they are not whole."""
    attributes: dict[str, str]
    """Short name -> name of the challenges that its sequences may have."""


def load_spec(name: str) -> Spec:
    """The data file `<name>.json`, with the keys of its base."""
    keys = _load_keys(name)
    keys["dataset"] = keys.get("dataset", name)
    keys["variants"] = tuple(Variant(**{**v, "frames": tuple(v["frames"])}) for v in keys["variants"])
    keys["sequences"] = {key: Entry(**entry) for key, entry in keys.get("sequences", {}).items()}
    return Spec(**keys)


def _load_keys(name: str) -> dict[str, Any]:
    keys = json.loads((SPECS / f"{name}.json").read_text(encoding="utf-8"))
    if "base" in keys:
        keys = {**_load_keys(keys.pop("base")), **keys}
        keys["sequences"] = {key: keys["sequences"][key] for key in keys.pop("names")}
    return keys


def sequence_names(spec: Spec, root: Path) -> list[str]:
    """Names of a benchmark's sequences, as results have them; OSError when `root` has to be searched and is absent."""
    if spec.sequences:
        names = list(spec.sequences)
    elif spec.list_file and (root / spec.list_file).is_file():
        names = read_names(root / spec.list_file)
    else:
        above, _, below = spec.scan.partition("*")
        if not (root / above).is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(root / above))
        names = [path.parent.name if "/" in below else path.stem for path in root.glob(spec.scan)]
        names.sort(key=natural_key)
    return [spec.prefix + name for name in names]


def read_sequences(spec: Spec, root: Path, names: list[str]) -> list[Sequence]:
    """Read the annotations of sequences; pictures are only looked for, not opened.

    Args:
        root: the benchmark's folder.
        names: as `sequence_names` gives them.

    Raises:
        UserError: sequences are missing, a file is damaged, or boxes and frames do not match.
    """
    located = [_find(spec, root, name) for name in names]
    missing = [name for name, stored in zip(names, located, strict=True) if stored is None]
    if missing and not spec.download:
        causes = [_why_missing(spec, root, name) for name in missing[:SHOWN]]
        suffix = f"; {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise UserError(f"{len(missing)} of {len(names)} sequences in {root} have no boxes: "
                        f"{'; '.join(causes)}{suffix}")
    if missing:
        suffix = ", ..." if len(missing) > SHOWN else ""
        raise UserError(f"{len(missing)} of {len(names)} sequences of {spec.title} have no box file in {root}: "
                        f"{', '.join(missing[:SHOWN])}{suffix}; expected {spec.layout}; get them from {spec.download}")
    return [_read(spec, stored) for stored in located if stored is not None]


def _why_missing(spec: Spec, root: Path, name: str) -> str:
    """Why a sequence of a folder of one's own has no box file, and what to do."""
    folder = root / name
    if not folder.is_dir():
        list_file = root / spec.list_file
        lines = read_text(list_file, "list of sequences").splitlines()
        line = next(number for number, line in enumerate(lines, 1) if line.strip() == name)
        return f"{list_file}, line {line}, names {name!r}, and there is no such folder: correct or remove the line"
    objects = next(folder.glob(OBJECT_FILES), None)
    return one_object(objects) if objects else f"{folder} holds no groundtruth.txt"


@dataclass(frozen=True)
class _Stored:
    """Where one sequence lies."""

    name: str
    entry: Entry
    variant: Variant
    box_file: Path
    root: Path
    parts: dict[str, str]
    """What stands for {name} and the others in paths."""

    def path(self, pattern: str) -> Path:
        return self.root / pattern.format(**self.parts)


def _find(spec: Spec, root: Path, full_name: str) -> _Stored | None:
    """A sequence in the first variant whose box file is there; None without any."""
    name = full_name.removeprefix(spec.prefix)
    entry = spec.sequences.get(name, Entry())
    parts = {"name": name, "folder": entry.folder or name, "group": name.rpartition("-")[0]}
    for variant in spec.variants:
        path = (entry.boxes or variant.boxes).format(**parts)
        files = sorted(root.glob(path)) if "*" in path else [root / path]
        if files and files[0].is_file():
            parts["beside"] = str(files[0].parent)
            return _Stored(full_name, entry, variant, files[0], root, parts)
    return None


def _read(spec: Spec, stored: _Stored) -> Sequence:
    entry, variant, box_file = stored.entry, stored.variant, stored.box_file
    boxes = READERS[variant.format](box_file)
    if entry.length not in (None, len(boxes)) and variant.format != "vatic":
        raise UserError(f"{box_file} holds {len(boxes)} boxes, but {stored.name} of {spec.title} has {entry.length} "
                        f"frames; the file is cut off or belongs to another version: get it from {spec.download}")
    frames = _open_frames(spec, stored, len(boxes))
    if not spec.download:
        form = declared_form(DirectoryStorage(stored.root), stored.name)
        boxes, loss = own_boxes(boxes, frames, str(box_file), form)
        warn_of_loss(frames.path(0), loss)
    earlier = np.concatenate([np.full((entry.first - 1, 4), np.nan), boxes[:entry.skip]])
    boxes = boxes[entry.skip:]
    if variant.format == "vatic":
        boxes = _thin_out(boxes, len(frames), variant.every)
    if spec.first_box_only and len(boxes) < len(frames):
        boxes = np.concatenate([boxes, np.full((len(frames) - len(boxes), 4), np.nan)])
    frames = match_frames(frames, len(boxes), box_file, own=not spec.download)
    visible = np.isfinite(boxes[:, 0]) if spec.absent_is_unseen else None
    if variant.labels:
        visible = read_visibility(stored.path(variant.labels), len(boxes))
    object_class = stored.parts["group"] if spec.class_in_name else entry.object_class
    return Sequence(stored.name, spec.dataset, frames, boxes, visible, object_class, tuple(entry.attributes.split()),
                    box_file=str(box_file), earlier=earlier)


def _open_frames(spec: Spec, stored: _Stored, count: int) -> FrameSource:
    """The frames of a sequence with `count` boxes. Of numbered ones, only the first and the last are looked for."""
    entry = stored.entry
    tried = []
    for pattern in (entry.frames,) if entry.frames else stored.variant.frames:
        if "{frame" not in pattern:
            tried.append(stored.path(pattern))
            if tried[-1].is_dir():
                return open_frames(tried[-1])
            continue
        folder, _, template = pattern.rpartition("/")
        frames = NumberedFrames(stored.path(folder), template, entry.first + entry.skip, count - entry.skip)
        tried.append(Path(frames.path(0)))
        if tried[-1].is_file():
            last = frames.path(len(frames) - 1)
            if not os.path.isfile(last):
                raise UserError(f"frames of {stored.name} are missing: {stored.box_file} holds {count} boxes, but "
                                f"there is no {last}; unpack that sequence again")
            return frames
    raise UserError(f"no frames of {stored.name} ({spec.title}): there is no {' and no '.join(map(str, tried))}; "
                    f"expected {spec.layout}")


def _thin_out(boxes_xywh: np.ndarray, frames: int, every: int) -> np.ndarray:
    """The boxes of NFS that belong to its frames.

    The box files of the 30 FPS videos have a line for every frame at 240 FPS, and some box files of either rate have
    one line too many at the end (the rules of the GOT-10k toolkit).
    """
    if len(boxes_xywh) > frames + 1 and abs(len(boxes_xywh[::every]) - frames) <= 1:
        boxes_xywh = boxes_xywh[::every]
    return boxes_xywh[:frames] if len(boxes_xywh) == frames + 1 else boxes_xywh


def _benchmark(spec: Spec) -> Benchmark:
    return Benchmark(spec.title, spec.dataset, spec.field, spec.layout, spec.download, partial(sequence_names, spec),
                     partial(read_sequences, spec), spec.attributes)


_SPECS = {path.stem: load_spec(path.stem) for path in sorted(SPECS.glob("*.json"))}
BENCHMARKS = {name: _benchmark(spec) for name, spec in _SPECS.items()}
"""Benchmarks by the names that users type (`get_dataset`)."""
ALIASES = {alias: name for name, spec in _SPECS.items() for alias in spec.aliases}
"""Other names of benchmarks."""
OWN_FOLDERS = frozenset(spec.dataset for spec in _SPECS.values() if spec.own_folder)
"""Data sets (`Sequence.dataset`) that share names of sequences with others; their results have their own folder."""


def benchmark_key(name: str) -> str:
    """The name in `BENCHMARKS` of a name that a user typed; another text in lower case."""
    return ALIASES.get(name.lower(), name.lower())


def _lone_videos(spec: Spec) -> dict[str, str]:
    """Sequence -> its video's name, where that is another one and no other sequence is of that video."""
    videos = [entry.folder or name for name, entry in spec.sequences.items()]
    return {spec.prefix + name: entry.folder for name, entry in spec.sequences.items()
            if entry.folder not in ("", *spec.sequences) and videos.count(entry.folder) == 1}


VIDEO_NAMES = {spec.dataset: videos for spec in _SPECS.values() if (videos := _lone_videos(spec))}
"""Data set -> sequence -> its video's name, which others call it by (the GOT-10k toolkit OTB's `Human4_2` `Human4`)."""


def vot_benchmark(dataset: str) -> Benchmark:
    """A benchmark for any folder in VOT's layout; its list.txt names the sequences, or all sub-folders are some.

    Args:
        dataset: what `Sequence.dataset` will say.
    """
    return _benchmark(replace(_SPECS["vot"], title=dataset, dataset=dataset, download=""))


def one_object(box_file: Path) -> str:
    """What to do with the layout of VOTS, of which `box_file` is one file of boxes."""
    return (f"in {box_file.parent} the boxes are in {OBJECT_FILES.replace('*', '<object>')}, the layout of VOTS with "
            f"several objects: copy one object's file to {box_file.parent / 'groundtruth.txt'}")
