"""Any folder of sequences: pictures or videos with a box file each."""

import logging

import numpy as np

from lib.train.dataset.base import Annotation, TrackingDataset
from lib.utils.images import read_file
from lib.utils.sequences import ImageFrames, VideoFrames, find_in_spec

logger = logging.getLogger(__name__)


class Folder(TrackingDataset):
    """The sequences of ``<folder>[@<list file>]``, laid out as :mod:`lib.utils.sequences` describes.

    A frame is visible where it has a box and the label files of GOT-10k or LaSOT, when there are any, agree. A video
    is decoded from its beginning for every pair: fine for short clips, slow for long ones, which are better unpacked.

    Raises:
        UserError: nothing there, or a sequence whose frames and boxes do not match.
    """

    def __init__(self, spec: str):
        super().__init__()
        self._sequences = find_in_spec(spec)
        self.name = f"folder:{spec}"
        self._last = 0
        videos = sum(isinstance(files.frames, VideoFrames) for files in self._sequences)
        if videos:
            logger.warning("%s: %d of %d sequences are videos, each decoded from its beginning for every pair; unpack "
                           "long ones to pictures to train faster", self.name, videos, len(self._sequences))

    def __len__(self) -> int:
        return len(self._sequences)

    def frame(self, sequence: int, index: int) -> np.ndarray:
        if sequence != self._last:
            self._sequences[self._last].frames.close()
            self._last = sequence
        return self._sequences[sequence].frames[index]

    def encoded(self, sequence: int, index: int) -> bytes | None:
        frames = self._sequences[sequence].frames
        return read_file(frames.path(index)) if isinstance(frames, ImageFrames) else None

    def frame_path(self, sequence: int, index: int) -> str:
        return self._sequences[sequence].frames.path(index)

    def _read_annotation(self, sequence: int) -> Annotation:
        files = self._sequences[sequence]
        return Annotation.of(files.boxes, files.visible)
