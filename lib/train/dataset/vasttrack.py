"""VastTrack (Peng et al., NeurIPS 2024)."""

from .annotation import Annotation
from .base import StoredDataset, read_ranges, spec_lines

LAYOUT = "<class>/<class>-<number>/{imgs/00001.jpg, ..., Groundtruth.txt}, ..."
TEST_SPEC = "vasttrack_test.txt"
BOX_FILES = ("Groundtruth.txt", "groundtruth.txt")


class VastTrack(StoredDataset):
    """The sequences of VastTrack that are there, as <class>/<class>-<number>, without those of its test set.

    Boxes are taken as they are (first pixel 1 as in LaSOT); a box 0,0,0,0 marks a frame without the target. Some
    sequences write their box file with a small first letter.
    """

    name = "vasttrack"

    def _find(self) -> list[str]:
        test = set()
        for line in spec_lines(TEST_SPEC):
            category, _, numbers = line.rpartition(":")
            test.update(f"{category}/{category}-{number}" for number in read_ranges(numbers.split()))
        folders = [f"{category}/{folder}" for category in self.storage.folders()
                   for folder in self.storage.folders(category) if folder.startswith(f"{category}-")]
        return [name for name in folders if name not in test]

    def annotation_files(self, name: str) -> list[str]:
        return [f"{name}/{file}" for file in BOX_FILES]

    def frame_file(self, sequence: int, index: int) -> str:
        return f"{self.sequences[sequence]}/imgs/{index + 1:05d}.jpg"

    def read_annotation(self, sequence: int) -> Annotation:
        files = self.annotation_files(self.sequences[sequence])
        return Annotation.of(self.boxes_in(next((file for file in files if self.storage.has_file(file)), files[0])))
