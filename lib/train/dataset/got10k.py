"""GOT-10k (Huang et al., TPAMI 2021)."""

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
from lib.utils.errors import UserError

LAYOUT = ("list.txt and GOT-10k_Train_000001/{00000001.jpg, ..., groundtruth.txt, absence.label, cover.label}, "
          "GOT-10k_Train_000002/, ...")
SPLIT_FILES = {"vottrain": "got10k_vottrain.txt", "votval": "got10k_votval.txt"}
TRAIN_SIZE = 9335


class Got10k(StoredDataset):
    """GOT-10k's training set, a part of it, or its validation set.

    A frame is visible where it has a box, absence.label is 0 and cover.label is above 0.

    Args:
        root: the folder with list.txt (`train` or `val` of the data set).
        split: "vottrain" or "votval" (the parts that OSTrack takes from the training set, sequence positions in
            lib/train/data_specs), or None for every sequence of `root`.
        dataset: name in the yaml, for messages.
        field: setting that holds `root`, for messages.

    Raises:
        UserError: nothing there, or not the full training set where a split needs its numbering.
    """

    name = "got10k"

    def __init__(self, root: str | Path | None, split: str | None = None, *, dataset: str = "GOT10K_train_full",
                 field: str = "got10k_dir"):
        storage = open_root(root, dataset, field, LAYOUT)
        folders = storage.folders()
        if storage.has_file("list.txt"):
            names = storage.read_text("list.txt").split()
        else:
            names = [name for name in folders if name.startswith("GOT-10k_")]
        if split is not None:
            if len(names) != TRAIN_SIZE:
                raise UserError(
                    f"data set {dataset}: {storage.locate('list.txt')} must name the {TRAIN_SIZE} sequences of "
                    f"GOT-10k's full training set, since the split counts positions in it; {len(names)} found. To "
                    f"train on whatever is in the folder use GOT10K_train_full or FOLDER:{storage.root}"
                )
            names = [names[i] for line in read_spec(SPLIT_FILES[split]) for i in read_ranges(line)]
        sequences = present_only(dataset, names, set(folders))
        if not sequences:
            raise nothing_found(storage, dataset, field, LAYOUT)
        super().__init__(storage, sequences)

    def frame_file(self, sequence: int, index: int) -> str:
        return f"{self.sequences[sequence]}/{index + 1:08d}.jpg"

    def _read_annotation(self, sequence: int) -> Annotation:
        return self._annotation_in(self.sequences[sequence])
