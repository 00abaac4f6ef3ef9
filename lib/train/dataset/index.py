"""The annotations of a whole data set as memory-mapped arrays: built once, shared by all workers and processes.

A saved index is a folder ``<index folder>/<data set>-<key>/<state>`` with one .npy file per array. The key stands for
the data set and its root, the state for what lay there (sizes and times of its annotation files, or of its archives)
when the index was built. Another state is another index; the old one is removed. The folder appears whole, by a rename,
so processes that build the same index at once do no harm: the first one's stays.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.storage import State
from .annotation import Annotation
from .columns import TextColumn, columns_digest

logger = logging.getLogger(__name__)

FORMAT = 2
"""Of the saved folder; another number makes another key."""
META = "index.json"
PART = ".part-"
"""Start of the name of a folder that is being written."""
PART_LIFE = 86400
"""Seconds after which such a folder is a leftover of a process that was killed."""


class DamagedIndexError(ValueError):
    """A saved index that is not whole."""


class Index:
    """Boxes, visibility and names of all sequences of a data set.

    Pickled by its folder when it is saved, so that another process maps the same memory; else with its arrays.

    Args:
        arrays: offsets (S + 1,) int64, the first frame of each sequence and the number of all frames N; boxes (N, 4)
            float32 xywh, NaN where there is none; visible (N,) bool; seen (S,) int32, visible frames of each sequence;
            and more columns by name.
        note: what to tell the user whenever the index is used ('' for nothing).
        folder: where it is saved.
    """

    def __init__(self, arrays: dict[str, np.ndarray], note: str = "", folder: Path | None = None):
        self._arrays = arrays
        self.note = note
        self.folder = folder
        self._offsets, self._boxes, self._visible = arrays["offsets"], arrays["boxes"], arrays["visible"]

    @classmethod
    def of(cls, lengths: Sequence[int] | np.ndarray, boxes: np.ndarray, visible: np.ndarray,
           texts: dict[str, Sequence[str]], numbers: dict[str, Any], note: str = "") -> "Index":
        """An index in memory.

        Args:
            lengths: (S,) frames of each sequence.
            boxes: (N, 4) float32.
            visible: (N,) bool.
            texts: name -> column of texts.
            numbers: name -> column of numbers, or any other array.
        """
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        sums = np.concatenate([[0], np.cumsum(visible, dtype=np.int64)])
        arrays = {"offsets": offsets, "boxes": boxes, "visible": visible,
                  "seen": np.diff(sums[offsets]).astype(np.int32)}
        for name, column in texts.items():
            packed = TextColumn.of(column)
            arrays |= {f"{name}.text": packed.text, f"{name}.ends": packed.ends}
        return cls(arrays | {name: np.asarray(column) for name, column in numbers.items()}, note)

    @classmethod
    def of_annotations(cls, annotations: Sequence[Annotation], texts: dict[str, Sequence[str]],
                       numbers: dict[str, Any], note: str = "") -> "Index":
        """An index in memory of sequences one by one."""
        return cls.of([len(a.visible) for a in annotations],
                      np.concatenate([a.boxes for a in annotations] or [np.empty((0, 4), np.float32)]),
                      np.concatenate([a.visible for a in annotations] or [np.empty(0, bool)]), texts, numbers, note)

    @classmethod
    def open(cls, folder: Path) -> "Index":
        """A saved index.

        Raises:
            DamagedIndexError: it is not whole.
        """
        try:
            meta = json.loads((folder / META).read_text(encoding="utf-8"))
            arrays = {}
            for name, size in meta["arrays"].items():
                path = folder / f"{name}.npy"
                if path.stat().st_size != size:
                    raise DamagedIndexError(f"{path.name} has {path.stat().st_size} bytes instead of {size}")
                arrays[name] = np.asarray(np.load(path, mmap_mode="r"))
            index = cls(arrays, meta["note"], folder)
            if index._offsets[-1] != len(index._boxes) or len(index._visible) != len(index._boxes):
                raise DamagedIndexError("its arrays do not fit together")
            return index
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedIndexError(str(error)) from error

    def save(self, folder: Path) -> None:
        """Write the files of a saved index into the new folder `folder`, and have them on the disk."""
        folder.mkdir(parents=True)
        sizes = {}
        for name, array in self._arrays.items():
            path = folder / f"{name}.npy"
            with open(path, "wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            sizes[name] = path.stat().st_size
        with open(folder / META, "w", encoding="utf-8") as file:
            json.dump({"note": self.note, "arrays": sizes}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())

    def __reduce__(self):
        if self.folder is not None:
            return Index.open, (self.folder,)
        return Index, (self._arrays, self.note)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def annotation(self, sequence: int) -> Annotation:
        """Boxes of a sequence: read-only views, nothing is copied."""
        frames = slice(int(self._offsets[sequence]), int(self._offsets[sequence + 1]))
        return Annotation(self._boxes[frames], self._visible[frames])

    def first(self, sequence: int) -> int:
        """Place of a sequence's first frame in columns that have one entry per frame."""
        return int(self._offsets[sequence])

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """(S,) frames and (S,) visible frames of each sequence."""
        return np.diff(self._offsets), self._arrays["seen"]

    def digest(self) -> str:
        """Of the names, the numbers of frames, the boxes and their visibility: the same wherever the data set lies, and
        whatever the pictures show."""
        names = self.texts("names")
        return columns_digest([names.text, names.ends, self._offsets, self._boxes, self._visible])

    def texts(self, name: str) -> TextColumn:
        """A column of texts."""
        return TextColumn(self._arrays[f"{name}.text"], self._arrays[f"{name}.ends"])

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers."""
        return self._arrays[name]

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose name starts with `prefix`, without it."""
        return {name.removeprefix(prefix): array for name, array in self._arrays.items() if name.startswith(prefix)}


def load_or_build(index_dir: str, dataset: str, root: str, state: State, build: Callable[[], Index]) -> Index:
    """The index of a data set: the saved one if it is whole and the data set has not changed, else a new one.

    Args:
        index_dir: folder of all saved indices; '' keeps the new one in memory only.
        dataset: name in the yaml.
        root: where the data set lies, and anything else that makes it another one.
        state: of the data set now.
        build: makes the index.

    Raises:
        UserError: whatever `build` raises. That the index cannot be saved is only a warning.
    """
    if not index_dir:
        return build()
    key = hashlib.sha1(f"{FORMAT}\0{dataset}\0{root}".encode("utf-8", "surrogateescape")).hexdigest()[:12]
    place = Path(index_dir) / f"{re.sub(r'[^A-Za-z0-9]+', '_', dataset)[:40].strip('_').lower()}-{key}"
    folder = place / state.digest
    if folder.is_dir():
        try:
            return Index.open(folder)
        except DamagedIndexError as error:
            logger.warning("the index of %s in %s is damaged (%s) and is built again", dataset, folder, error)
    else:
        logger.info("building the index of %s in %s (%s)", dataset, place, _reason(place, state))
    index = build()
    index = Index(index._arrays | _state_columns(state), index.note)
    try:
        return _keep(index, place, folder)
    except OSError as error:
        logger.warning("the index of %s cannot be saved in %s (%s), so each process keeps its own in memory and builds "
                       "it at every start; set index_dir in lib/train/admin/local.py or COMPRESSTRACKER_INDEX_DIR to a "
                       "folder with space that can be written", dataset, place, error.strerror or error)
        return index


def _keep(index: Index, place: Path, folder: Path) -> Index:
    """Save an index as `folder` and give the saved one. A whole one that is there by now stays."""
    part = place / f"{PART}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        index.save(part)
        for _ in range(2):
            try:
                os.rename(part, folder)
                break
            except OSError:
                if not folder.is_dir():
                    raise
            try:
                return Index.open(folder)  # another process was faster
            except DamagedIndexError:
                os.rename(folder, part.with_name(part.name + "-damaged"))
        saved = Index.open(folder)
    except DamagedIndexError as error:
        raise OSError(str(error)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(part.with_name(part.name + "-damaged"), ignore_errors=True)
    _tidy(place, folder)
    return saved


def _tidy(place: Path, folder: Path) -> None:
    """Remove the indices of earlier states, and what killed processes left behind."""
    with contextlib.suppress(OSError):  # another process may be tidying, too
        for entry in place.iterdir():
            leftover = entry.name.startswith(PART) and time.time() - entry.stat().st_mtime > PART_LIFE
            if leftover or (entry != folder and not entry.name.startswith(PART)):
                shutil.rmtree(entry, ignore_errors=True)


def _state_columns(state: State) -> dict[str, np.ndarray]:
    names = TextColumn.of(state.names)
    return {"state.text": names.text, "state.ends": names.ends, "state.stamps": state.stamps}


def _reason(place: Path, state: State) -> str:
    """Why a new index is needed: the first one, or what has changed since the newest one."""
    try:
        older = sorted((entry for entry in place.iterdir() if not entry.name.startswith(PART)),
                       key=lambda entry: entry.stat().st_mtime)
        old = Index.open(older[-1])
        before = State(list(old.texts("state")), old.numbers("state.stamps"))
    except (OSError, IndexError, KeyError, DamagedIndexError):
        return "once; later starts only check whether the data set has changed"
    return f"the data set has changed: {state.changes_since(before)}"
