"""TNL2K (Wang et al., CVPR 2021)."""

from collections.abc import Sequence

from ...utils.errors import UserError
from ...utils.frames import picture_names
from .annotation import Annotation
from .base import StoredDataset, spec_lines

LAYOUT = "<sequence>/{imgs/*.jpg or *.png, groundtruth.txt}, ..., or such folders one level deeper"
TEST_SPEC = "tnl2k_test.txt"


class Tnl2k(StoredDataset):
    """The sequences of TNL2K that are there, in the folder or one level deeper, without those of its test set.

    Their pictures have names of many kinds; they are taken in natural order. A box without size marks a frame without
    the target.
    """

    name = "tnl2k"

    def _find(self) -> list[str]:
        test = set(spec_lines(TEST_SPEC))
        folders = []
        for folder in self.storage.folders():
            inner = self.storage.folders(folder)
            deeper = [f"{folder}/{name}" for name in inner]
            folders += [folder] if "imgs" in inner else [n for n in deeper if "imgs" in self.storage.folders(n)]
        return [name for name in folders if name.rpartition("/")[2] not in test]

    def annotation_files(self, name: str) -> list[str]:
        return [f"{name}/groundtruth.txt", f"{name}/imgs"]

    def frame_file(self, sequence: int, index: int) -> str:
        if self._index is None:
            return self.frame_files(sequence, index + 1)[index]
        frames = self._index.texts("frames")
        return f"{self.sequences[sequence]}/imgs/{frames[self._index.first(sequence) + index]}"

    def frame_files(self, sequence: int, count: int) -> list[str]:
        """See the base class; fewer where there are fewer pictures."""
        return [f"{self.sequences[sequence]}/imgs/{name}" for name in self._pictures(sequence)[:count]]

    def read_annotation(self, sequence: int) -> Annotation:
        return Annotation.of(self.boxes_in(f"{self.sequences[sequence]}/groundtruth.txt"))

    def _texts(self, annotations: Sequence[Annotation]) -> dict[str, Sequence[str]]:
        frames: list[str] = []
        for sequence, annotation in enumerate(annotations):
            pictures, boxes = self._pictures(sequence), len(annotation.visible)
            if len(pictures) < boxes:
                raise UserError(f"{self.storage.locate(self.sequences[sequence])}: groundtruth.txt holds {boxes} "
                                f"boxes, but there are only {len(pictures)} pictures in imgs")
            frames += pictures[:boxes]
        return {"frames": frames}

    def _pictures(self, sequence: int) -> list[str]:
        return picture_names(self.storage, f"{self.sequences[sequence]}/imgs")
