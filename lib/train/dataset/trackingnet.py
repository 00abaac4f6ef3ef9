"""TrackingNet (Müller et al., ECCV 2018)."""

from collections.abc import Iterator

from .annotation import Annotation
from .base import StoredDataset

CHUNKS = tuple(f"TRAIN_{number}" for number in range(12))
LAYOUT = "TRAIN_0/{anno/<sequence>.txt, frames/<sequence>/0.jpg, ...}, ..., TRAIN_11/"


class TrackingNet(StoredDataset):
    """TrackingNet's training chunks TRAIN_0 to TRAIN_11, or those of them that are there, as <chunk>/<sequence>.

    Every frame with a box of positive size is visible.
    """

    name = "trackingnet"

    def _find(self) -> list[str]:
        sequences, self.missing = [], []
        for chunk in CHUNKS:
            names = [name.removesuffix(".txt") for name in self.storage.files(f"{chunk}/anno") if name.endswith(".txt")]
            sequences += [f"{chunk}/{name}" for name in names]
            if not names:
                self.missing.append(chunk)
        if self.missing:
            self.note = (f"{', '.join(self.missing)} not in {self.storage.root}; training goes on with "
                         f"{len(sequences)} sequences")
        return sequences

    def annotation_files(self, name: str) -> list[str]:
        chunk, sequence = name.split("/", 1)
        return [f"{chunk}/anno/{sequence}.txt"]

    def frame_file(self, sequence: int, index: int) -> str:
        chunk, name = self.sequences[sequence].split("/", 1)
        return f"{chunk}/frames/{name}/{index}.jpg"

    def packed_files(self) -> Iterator[str]:
        for name in self.sequences:
            chunk, sequence = name.split("/", 1)
            yield from self.annotation_files(name)
            yield from self.storage.walk(f"{chunk}/frames/{sequence}")

    def read_annotation(self, sequence: int) -> Annotation:
        return Annotation.of(self.boxes_in(self.annotation_files(self.sequences[sequence])[0]))
