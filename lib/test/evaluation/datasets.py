"""Test sets: where each lies, which sequences it has, and how one is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.utils.errors import UserError
from lib.utils.files import resolve
from lib.utils.sequences import (
    FrameSource,
    SequenceFiles,
    find_in_spec,
    find_sequences,
    natural_key,
    open_frames,
    read_boxes,
    read_names,
)

SPECS = Path(__file__).parent / "data_specs"


@dataclass(frozen=True)
class Sequence:
    """A sequence to track."""

    name: str
    dataset: str
    """lasot, got10k, trackingnet, or folder:<folder's name>; decides where results lie."""
    frames: FrameSource
    ground_truth: np.ndarray
    """(N, 4) float xywh in pixels; NaN where the target is absent or (test servers) the box is kept secret."""
    visible: np.ndarray | None = None
    """(N,) bool; None when the data set does not say."""

    @property
    def length(self) -> int:
        """Number of frames to track."""
        return len(self.frames)

    def first_box(self) -> list[float]:
        """[x, y, w, h] that the tracker starts from.

        Raises:
            UserError: the target is absent in the first frame.
        """
        box = self.ground_truth[0].tolist()
        if not np.isfinite(box).all():
            raise UserError(f"{self.name}: the first frame has no box to start from")
        return box


class Benchmark(NamedTuple):
    """How to find and read one data set."""

    dataset: str
    """What `Sequence.dataset` says."""
    field: str
    """The environment setting with the data set's folder."""
    layout: str
    """What that folder must hold, for error messages."""
    names: Callable[[Path], list[str]]
    """Folder -> names of all sequences."""
    read: Callable[[Path, str], SequenceFiles]
    """Folder and name -> the sequence."""


def _got10k(split: str) -> Benchmark:
    def names(root: Path) -> list[str]:
        listed = root / split / "list.txt"
        if listed.is_file():
            return read_names(listed)
        return sorted((d.name for d in (root / split).iterdir() if d.is_dir()), key=natural_key)

    def read(root: Path, name: str) -> SequenceFiles:
        files = find_sequences(root / split, [name])[0]
        files.visible = None  # the labels of GOT-10k belong to its own metrics, OSTrack's do not use them
        return files

    return Benchmark("got10k", "got10k_path", f"{split}/list.txt and {split}/<sequence>/00000001.jpg ...", names, read)


def _read_lasot(root: Path, name: str) -> SequenceFiles:
    grouped = root / name.rsplit("-", 1)[0]
    return find_sequences(grouped if (grouped / name).is_dir() else root, [name])[0]


def _trackingnet_names(root: Path) -> list[str]:
    return sorted((file.stem for file in (root / "TEST" / "anno").iterdir() if file.suffix == ".txt"), key=natural_key)


def _read_trackingnet(root: Path, name: str) -> SequenceFiles:
    box_file = root / "TEST" / "anno" / f"{name}.txt"
    frames, known = open_frames(root / "TEST" / "frames" / name), read_boxes(box_file)
    if len(known) > len(frames):
        raise UserError(f"{box_file} holds {len(known)} boxes but {root / 'TEST' / 'frames' / name} only "
                        f"{len(frames)} frames; unpack that sequence again")
    boxes = np.full((len(frames), 4), np.nan)
    boxes[:len(known)] = known
    return SequenceFiles(name, frames, boxes, box_file)


BENCHMARKS: dict[str, Benchmark] = {
    "lasot": Benchmark("lasot", "lasot_path", "<class>/<class>-<number>/img and groundtruth.txt",
                       lambda root: read_names(SPECS / "lasot_test.txt"), _read_lasot),
    "got10k_test": _got10k("test"),
    "got10k_val": _got10k("val"),
    "got10k_train": _got10k("train"),
    "trackingnet": Benchmark("trackingnet", "trackingnet_path", "TEST/anno/<sequence>.txt and TEST/frames/<sequence>",
                             _trackingnet_names, _read_trackingnet),
}


def get_dataset(name: str, env: Any, sequence: str | int | None = None, base: Path | None = None) -> list[Sequence]:
    """The sequences of a test set.

    Args:
        name: lasot, got10k_test, got10k_val, got10k_train, trackingnet, or `folder:<path>[@<file with names>]` for any
            folder of sequences (see `lib.utils.sequences`).
        env: environment settings with the folders of the data sets (`lasot_path`, ...).
        sequence: only this one, by name or by number (from 0).
        base: what relative paths of `folder:` start from; None is the working directory.

    Raises:
        UserError: unknown name, missing folder, no such sequence, or a sequence that is not whole.
    """
    if name.lower().startswith("folder:"):
        return _folder(name[len("folder:"):], sequence, base or Path.cwd())
    benchmark = BENCHMARKS.get(name.lower())
    if benchmark is None:
        raise UserError(f"unknown data set {name!r}; choose {', '.join(BENCHMARKS)} or folder:<path>")
    path = getattr(env, benchmark.field, "")
    root = resolve(path) if path else None
    expected = f"expected {benchmark.layout} there; set {benchmark.field} in lib/test/evaluation/local.py"
    if root is None or not root.is_dir():
        raise UserError(f"data set {name} not found: {benchmark.field} is {str(path)!r}; {expected}")
    try:
        names = benchmark.names(root)
    except FileNotFoundError as error:
        raise UserError(f"data set {name} is not whole: no {error.filename}; {expected}") from error
    if not names:
        raise UserError(f"data set {name} has no sequence in {root}; {expected}")
    found = (benchmark.read(root, n) for n in _pick(names, sequence, name))
    return [Sequence(files.name, benchmark.dataset, files.frames, files.boxes, files.visible) for files in found]


def _folder(spec: str, sequence: str | int | None, base: Path) -> list[Sequence]:
    found = {files.name: files for files in find_in_spec(spec, base)}
    folder = resolve(spec, base)
    if not folder.is_dir():
        folder = resolve(spec.rpartition("@")[0], base)
    dataset = f"folder:{folder.resolve().name}"
    chosen = (found[name] for name in _pick(list(found), sequence, f"folder:{spec}"))
    return [Sequence(files.name, dataset, files.frames, files.boxes, files.visible) for files in chosen]


def _pick(names: list[str], sequence: str | int | None, dataset: str) -> list[str]:
    """All names, or the one that `sequence` means. A name goes before a number, for sequences that are called 7."""
    if sequence is None:
        return names
    if str(sequence) in names:
        return [str(sequence)]
    try:
        return [names[int(sequence)]]
    except (ValueError, IndexError):
        raise UserError(f"{dataset} has no sequence {sequence!r}; give a name such as {names[0]!r} or a number from 0 "
                        f"to {len(names) - 1}") from None
