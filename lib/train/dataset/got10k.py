"""GOT-10k (Huang et al., TPAMI 2021)."""

from collections.abc import Iterator

from ...utils.errors import UserError
from ...utils.storage import Storage
from .annotation import Annotation
from .base import StoredDataset, read_ranges, read_spec
from .places import Place

LAYOUT = ("list.txt and GOT-10k_Train_000001/{00000001.jpg, ..., groundtruth.txt, absence.label, cover.label}, "
          "GOT-10k_Train_000002/, ...")
SPLIT_FILES = {"vottrain": "got10k_vottrain.txt", "votval": "got10k_votval.txt"}
LIST_FILE = "list.txt"
TRAIN_SIZE = 9335


class Got10k(StoredDataset):
    """GOT-10k's training set, a part of it, or its validation set.

    A frame is visible where it has a box, absence.label is 0 and cover.label is above 0.

    Args:
        storage: with list.txt (`train` or `val` of the data set).
        place: where it may lie, for messages.
        split: "vottrain" or "votval" (the parts that OSTrack takes from the training set, sequence positions in
            lib/train/data_specs), or None for every sequence.
    """

    name = "got10k"

    def __init__(self, storage: Storage, place: Place, split: str | None = None):
        super().__init__(storage, place)
        self.split = split

    def _find(self) -> list[str]:
        names, folders = self._listed(), set(self.storage.folders())
        if self.split is not None:
            if len(names) != TRAIN_SIZE:
                raise UserError(
                    f"data set {self.dataset}: {self.storage.locate(LIST_FILE)} must name the {TRAIN_SIZE} sequences "
                    f"of GOT-10k's full training set, since the split counts positions in it; {len(names)} found. To "
                    f"train on whatever is in the folder use GOT10K_train_full or FOLDER:{self.storage.root}"
                )
            names = [names[i] for line in read_spec(SPLIT_FILES[self.split]) for i in read_ranges(line)]
        return self._present(names, folders)

    def _listed(self) -> list[str]:
        """The names in list.txt, or without it those of the folders."""
        if self.storage.has_file(LIST_FILE):
            return self.storage.read_text(LIST_FILE).split()
        return [name for name in self.storage.folders() if name.startswith("GOT-10k_")]

    def annotation_files(self, name: str) -> list[str]:
        return [f"{name}/groundtruth.txt", *self.label_files(name)]

    def label_files(self, name: str) -> list[str]:
        return [f"{name}/{file}" for file in ("absence.label", "cover.label")]

    def frame_file(self, sequence: int, index: int) -> str:
        return f"{self.sequences[sequence]}/{index + 1:08d}.jpg"

    def packed_files(self) -> Iterator[str]:
        """The whole folder, whatever the split: the splits share one LMDB."""
        if self.storage.has_file(LIST_FILE):
            yield LIST_FILE
        present = set(self.storage.folders())
        for name in self._listed():
            if name in present:
                yield from self.storage.walk(name)

    def made_files(self) -> dict[str, bytes]:
        """list.txt, where it is missing."""
        return {} if self.storage.has_file(LIST_FILE) else {LIST_FILE: "\n".join(self._listed()).encode()}

    def read_annotation(self, sequence: int) -> Annotation:
        return self._labelled_boxes(self.sequences[sequence])
