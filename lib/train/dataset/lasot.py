"""LaSOT (Fan et al., CVPR 2019) and its extension (Fan et al., IJCV 2021)."""

from ...utils.storage import Storage
from .annotation import Annotation
from .base import StoredDataset, read_ranges, read_spec
from .places import Place

LAYOUT = "airplane/airplane-1/{img/00000001.jpg, ..., groundtruth.txt, full_occlusion.txt, out_of_view.txt}, ..."
TRAIN_SPEC = "lasot_train.txt"
EXTENSION_SPEC = "lasot_ext.txt"


class Lasot(StoredDataset):
    """Sequences of LaSOT or of its extension, as <class>/<class>-<number>.

    A frame is visible where it has a box and neither full_occlusion.txt nor out_of_view.txt is set.

    Args:
        storage: with the class folders.
        place: where it may lie, for messages.
        spec: file in lib/train/data_specs that names the sequences (LaSOT's 1120 training sequences of protocol II, or
            the extension's 150).
        name: short name.
    """

    def __init__(self, storage: Storage, place: Place, spec: str, name: str):
        super().__init__(storage, place)
        self.spec = spec
        self.name = name

    def _find(self) -> list[str]:
        listed, present = [], set()
        for category, *numbers in read_spec(self.spec):
            listed += [f"{category}/{category}-{number}" for number in read_ranges(numbers)]
            present.update(f"{category}/{folder}" for folder in self.storage.folders(category))
        return self._present(listed, present)

    def annotation_files(self, name: str) -> list[str]:
        return [f"{name}/groundtruth.txt", *self.label_files(name)]

    def label_files(self, name: str) -> list[str]:
        return [f"{name}/{file}" for file in ("full_occlusion.txt", "out_of_view.txt")]

    def frame_file(self, sequence: int, index: int) -> str:
        return f"{self.sequences[sequence]}/img/{index + 1:08d}.jpg"

    def read_annotation(self, sequence: int) -> Annotation:
        return self._labelled_boxes(self.sequences[sequence])


def categories(spec: str) -> list[str]:
    """Names of the class folders in a file of lib/train/data_specs."""
    return [category for category, *_ in read_spec(spec)]
