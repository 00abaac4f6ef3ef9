"""TrackingNet (Müller et al., ECCV 2018)."""

import logging
from pathlib import Path

from lib.train.dataset.base import Annotation, StoredDataset, nothing_found, open_root
from lib.utils.sequences import parse_boxes

logger = logging.getLogger(__name__)

CHUNKS = tuple(f"TRAIN_{number}" for number in range(12))
LAYOUT = "TRAIN_0/{anno/<sequence>.txt, frames/<sequence>/0.jpg, ...}, ..., TRAIN_11/"


class TrackingNet(StoredDataset):
    """TrackingNet's training chunks TRAIN_0 to TRAIN_11, or those of them that are there.

    Every frame with a box of positive size is visible.

    Args:
        root: the folder with the chunks.

    Raises:
        UserError: nothing there.
    """

    name = "trackingnet"

    def __init__(self, root: str | Path | None):
        storage = open_root(root, "TRACKINGNET", "trackingnet_dir", LAYOUT)
        sequences, missing = [], []
        for chunk in CHUNKS:
            names = [name.removesuffix(".txt") for name in storage.files(f"{chunk}/anno") if name.endswith(".txt")]
            sequences += [f"{chunk}/{name}" for name in names]
            if not names:
                missing.append(chunk)
        if not sequences:
            raise nothing_found(storage, "TRACKINGNET", "trackingnet_dir", LAYOUT)
        if missing:
            logger.warning("data set TRACKINGNET: %s not in %s; training goes on with %d sequences",
                           ", ".join(missing), storage.root, len(sequences))
        super().__init__(storage, sequences)

    def frame_file(self, sequence: int, index: int) -> str:
        chunk, name = self.sequences[sequence].split("/", 1)
        return f"{chunk}/frames/{name}/{index}.jpg"

    def _read_annotation(self, sequence: int) -> Annotation:
        chunk, name = self.sequences[sequence].split("/", 1)
        file = f"{chunk}/anno/{name}.txt"
        return Annotation.of(parse_boxes(self.storage.read_text(file), self.storage.locate(file)))
