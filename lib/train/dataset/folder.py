"""Any folder of sequences: pictures or videos with a box file each."""

import os
import threading

import numpy as np

from lib.train.dataset.annotation import Annotation
from lib.train.dataset.base import BUILD_THREADS, IndexedDataset
from lib.train.dataset.index import Index
from lib.train.dataset.storage import State, file_state
from lib.utils.frames import ImageFrames, VideoFrames
from lib.utils.images import decode_rgb, read_file
from lib.utils.progress import progress
from lib.utils.sequences import SequenceFiles, locate_in_spec, open_sequence, sequence_parts
from lib.utils.threads import map_in_threads


class Folder(IndexedDataset):
    """The sequences of ``<folder>[@<list file>]``, laid out as :mod:`lib.utils.sequences` describes.

    A frame is visible where it has a box and the label files of GOT-10k or LaSOT, when there are any, agree. A video
    is decoded from its beginning for every pair: fine for short clips, slow for long ones, which are better unpacked.

    Args:
        spec: folder and list file.
        dataset: name in the yaml.

    Raises:
        UserError: nothing there.
    """

    def __init__(self, spec: str, dataset: str):
        self.spec = spec
        self.dataset = dataset
        self.name = f"folder:{spec}"
        self._folders = list(locate_in_spec(spec).items())
        self._start()

    def _start(self) -> None:
        self._video: tuple[int, VideoFrames] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict:
        return {key: value for key, value in vars(self).items() if key not in ("_video", "_lock")}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._start()

    def __len__(self) -> int:
        return len(self._folders)

    @property
    def sequences(self) -> list[str]:
        """Names of the sequences."""
        return [name for name, _ in self._folders]

    def open(self, sequence: int) -> SequenceFiles:
        """A sequence as it is on the disk now.

        Raises:
            UserError: its frames and boxes do not match, or cannot be read.
        """
        return open_sequence(*self._folders[sequence])

    def frame(self, sequence: int, index: int) -> np.ndarray:
        if self._is_video(sequence):
            return self._video_frame(sequence, index)
        path = self.frame_path(sequence, index)
        return decode_rgb(read_file(path), path)

    def encoded(self, sequence: int, index: int) -> bytes | None:
        return None if self._is_video(sequence) else read_file(self.frame_path(sequence, index))

    def frame_path(self, sequence: int, index: int) -> str:
        found = self.index
        source = found.texts("sources")[sequence]
        if self._is_video(sequence):
            return source
        return os.path.join(source, found.texts("frames")[found.first(sequence) + index])

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

    def _root(self) -> str:
        return f"{os.path.commonpath([path for _, path in self._folders])}\0{self.spec}"

    def _state(self) -> State:
        return file_state("", [part for _, path in self._folders for part in sequence_parts(path)])

    def _build(self) -> Index:
        total = len(self)
        opened = map_in_threads(lambda item: open_sequence(*item), self._folders, BUILD_THREADS)
        found = list(progress(opened, total, f"index of {self.dataset}", "sequences"))
        sources, frames, video = [], [], []
        for files in found:
            pictures = isinstance(files.frames, ImageFrames)
            sources.append(files.frames.folder if pictures else files.frames.path(0))
            frames += files.frames.names if pictures else [""] * len(files.frames)
            video.append(not pictures)
        if any(video):
            self.note = (f"{sum(video)} of {total} sequences are videos, each decoded from its beginning for every "
                         "pair; unpack long ones to pictures to train faster")
        return Index.of_annotations([Annotation.of(files.boxes, files.visible) for files in found],
                                    {"sources": sources, "frames": frames}, {"video": np.array(video)}, self.note)
