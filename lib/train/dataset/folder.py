"""Any folder of sequences: pictures or videos with a box file each."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...config import FOLDER_PREFIX
from ...utils.errors import UserError
from ...utils.frames import IMAGE_SUFFIXES, ImageFrames, VideoFrames, frames_in, video_error
from ...utils.progress import progress
from ...utils.sequences import (
    SequenceFiles,
    list_on_disk,
    listed_names,
    locate_sequences,
    open_sequence,
    sequence_parts,
    split_spec,
)
from ...utils.storage import State, Storage, file_state, joined
from ...utils.threads import map_in_threads
from .annotation import Annotation
from .base import BUILD_THREADS, StoredDataset
from .index import Index
from .places import Place, is_in_some_form
from .storage import ArchiveStorage

PACKED = (*IMAGE_SUFFIXES, ".txt", ".label")
"""Endings of the files that an LMDB holds: pictures, boxes and labels, and lists of sequences."""


class Folder(StoredDataset):
    """The sequences of ``FOLDER:<path>[@<list file>]``, laid out as :mod:`lib.utils.sequences` describes.

    A frame is visible where it has a box and the label files of GOT-10k or LaSOT, when there are any, agree. A video
    is decoded from its beginning for every pair: fine for short clips, slow for long ones, which are better unpacked.
    In LMDBs and zip archives there can be none.
    """

    def __init__(self, storage: Storage, place: Place):
        super().__init__(storage, place)
        self.name = f"folder:{place.dataset.removeprefix(FOLDER_PREFIX)}"
        self._folders: dict[str, str] | None = None
        self.unboxed: list[str] = []
        self._start()

    def _start(self) -> None:
        self._video: tuple[int, VideoFrames] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict:
        left_out = ("_video", "_lock", *(("_folders",) if self._index is not None else ()))
        return {key: value for key, value in super().__getstate__().items() if key not in left_out}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__({"_folders": None, **state})
        self._start()

    @property
    def folders(self) -> dict[str, str]:
        """Name -> folder in the storage of each sequence.

        Raises:
            UserError: there is none, the list of names cannot be read, or a name in it is not there.
        """
        if self._folders is None:
            folder, list_file = own_parts(self.dataset)
            names = listed_names(list_file, folder, self.storage) if list_file else None
            folders = locate_sequences(self.storage, names, self.unboxed)
            if "" in folders.values() and isinstance(self.storage, ArchiveStorage) and len(self.storage.mounts) > 1:
                raise UserError(f"data set {self.dataset}: an archive in {self.storage.root} holds a sequence without "
                                "its folder; pack each sequence with its folder, as in `zip -0 -r dog.zip dog`")
            self._folders = folders
        return self._folders

    def _find(self) -> list[str]:
        return list(self.folders)

    def annotation_files(self, name: str) -> list[str]:
        return sequence_parts(self.storage, self.folders[name])

    def packed_files(self) -> Iterator[str]:
        """Pictures and text files of the whole folder, whatever the list: lists share one LMDB. The list itself may be
        called as it likes."""
        for folder in self.folders.values():
            frames = frames_in(self.storage, folder)
            if isinstance(frames, VideoFrames):
                raise video_error(frames.file)
        _, list_file = own_parts(self.dataset)
        yield from (name for name in self.storage.walk() if name.lower().endswith(PACKED) or name == list_file)

    def open(self, sequence: int) -> SequenceFiles:
        """A sequence as it is there now.

        Raises:
            UserError: its frames and boxes do not match, or cannot be read.
        """
        name = self.sequences[sequence]
        return open_sequence(self.storage, name, self.folders[name])

    def frame(self, sequence: int, index: int) -> np.ndarray:
        return self._video_frame(sequence, index) if self._is_video(sequence) else super().frame(sequence, index)

    def encoded(self, sequence: int, index: int) -> bytes | None:
        return None if self._is_video(sequence) else super().encoded(sequence, index)

    def frame_file(self, sequence: int, index: int) -> str:
        """See the base class; the video where the frame is in one."""
        dataset_index = self.index
        source = dataset_index.texts("sources")[sequence]
        return source if self._is_video(sequence) else joined(
            source, dataset_index.texts("frames")[dataset_index.first(sequence) + index])

    def read_annotation(self, sequence: int) -> Annotation:
        files = self.open(sequence)
        return Annotation.of(files.boxes, files.visible)

    def _is_video(self, sequence: int) -> bool:
        return bool(self.index.numbers("video")[sequence])

    def _video_frame(self, sequence: int, index: int) -> np.ndarray:
        with self._lock:  # one video is open at a time, and read by one thread at a time
            if self._video is None or self._video[0] != sequence:
                if self._video is not None:
                    self._video[1].close()
                length = len(self.index.annotation(sequence).visible)
                self._video = sequence, VideoFrames(self.frame_path(sequence, index), length)
            return self._video[1][index]

    def _state(self) -> State:
        """With the list, which archives do not know."""
        folder, list_file = own_parts(self.dataset)
        path = list_on_disk(list_file, folder) if list_file else None
        return super()._state() + file_state("", [] if path is None else [str(path)])

    def _build(self) -> Index:
        total = len(self)
        sequence_files = list(progress(map_in_threads(self.open, range(total), BUILD_THREADS), total,
                                       f"index of {self.dataset}", "sequences"))
        sources, frames, video = [], [], []
        for name, files in zip(self.sequences, sequence_files, strict=True):
            pictures = isinstance(files.frames, ImageFrames)
            sources.append(files.frames.folder if pictures else joined(
                self.folders[name], Path(files.frames.file).name))
            frames += files.frames.names if pictures else [""] * len(files.frames)
            video.append(not pictures)
        if any(video):
            self.note = (f"{sum(video)} of {total} sequences are videos, each decoded from its beginning for every "
                         "pair; unpack long ones to pictures to train faster")
        lossy = [files for files in sequence_files if files.loss]
        if lossy:
            self.note += (f"{'; ' * bool(self.note)}{len(lossy)} of {total} sequences lose grey levels, for instance "
                          f"{lossy[0].frames.path(0)}: {lossy[0].loss}")
        return Index.of_annotations([Annotation.of(files.boxes, files.visible) for files in sequence_files],
                                    {"names": self.sequences, "sources": sources, "frames": frames},
                                    {"video": np.array(video)} | self._storage_columns(), self.note)


def own_parts(dataset: str) -> tuple[Path, str]:
    """Folder (or archive) and list file of ``FOLDER:<path>[@<list file>]``; the list is '' for none."""
    return split_spec(dataset.removeprefix(FOLDER_PREFIX), is_there=is_in_some_form)
