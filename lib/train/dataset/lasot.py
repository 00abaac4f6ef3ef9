"""LaSOT (Fan et al., CVPR 2019)."""

from pathlib import Path

from lib.train.dataset.base import (
    Annotation,
    StoredDataset,
    nothing_found,
    open_root,
    present_only,
    read_ranges,
    read_spec,
)

LAYOUT = "airplane/airplane-1/{img/00000001.jpg, ..., groundtruth.txt, full_occlusion.txt, out_of_view.txt}, ..."


class Lasot(StoredDataset):
    """The 1120 training sequences of LaSOT (protocol II), as <class>/<class>-<number>.

    A frame is visible where it has a box and neither full_occlusion.txt nor out_of_view.txt is set.

    Args:
        root: the folder with the class folders.

    Raises:
        UserError: nothing there.
    """

    name = "lasot"

    def __init__(self, root: str | Path | None):
        storage = open_root(root, "LASOT", "lasot_dir", LAYOUT)
        wanted, present = [], set()
        for category, *numbers in read_spec("lasot_train.txt"):
            wanted += [f"{category}/{category}-{number}" for number in read_ranges(numbers)]
            present.update(f"{category}/{folder}" for folder in storage.folders(category))
        sequences = present_only("LASOT", wanted, present)
        if not sequences:
            raise nothing_found(storage, "LASOT", "lasot_dir", LAYOUT)
        super().__init__(storage, sequences)

    def frame_file(self, sequence: int, index: int) -> str:
        return f"{self.sequences[sequence]}/img/{index + 1:08d}.jpg"

    def _read_annotation(self, sequence: int) -> Annotation:
        return self._annotation_in(self.sequences[sequence])
