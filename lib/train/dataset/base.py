"""What a training data set is to the sampler: sequences with annotations, and frames."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.train.dataset.storage import DirectoryStorage
from lib.utils.errors import UserError
from lib.utils.images import decode_rgb
from lib.utils.sequences import parse_boxes, visibility

logger = logging.getLogger(__name__)

SPECS = Path(__file__).resolve().parents[1] / "data_specs"
CACHED_ANNOTATIONS = 2048


@dataclass(frozen=True)
class Annotation:
    """Boxes of one sequence."""

    boxes: np.ndarray
    """(N, 4) float32 xywh in pixels, NaN where there is none."""
    visible: np.ndarray
    """(N,) bool: there is a box and the target can be seen."""

    @property
    def valid(self) -> np.ndarray:
        """(N,) bool: there is a box of positive size."""
        return np.isfinite(self.boxes[:, 0])

    @classmethod
    def of(cls, boxes: np.ndarray, visible: np.ndarray | None = None) -> "Annotation":
        """From (N, 4) boxes with NaN where absent and (N,) labels, None where every box is visible."""
        valid = np.isfinite(boxes[:, 0])
        return cls(boxes.astype(np.float32), valid if visible is None else visible & valid)


class TrackingDataset(ABC):
    """Sequences of one data set.

    Attributes:
        name: short name for logs and statistics.
        is_video: False for single images, whose pairs come from one image.
    """

    name: str
    is_video = True

    def __init__(self) -> None:
        self._annotations: dict[int, Annotation] = {}

    @abstractmethod
    def __len__(self) -> int:
        """Number of sequences."""

    def annotation(self, sequence: int) -> Annotation:
        """Boxes of a sequence; read when first asked for, the latest 2048 are kept.

        Raises:
            UserError: an annotation file is missing or wrong.
        """
        found = self._annotations.get(sequence)
        if found is None:
            found = self._read_annotation(sequence)
            if len(self._annotations) >= CACHED_ANNOTATIONS:
                self._annotations.pop(next(iter(self._annotations)))
            self._annotations[sequence] = found
        return found

    @abstractmethod
    def frame(self, sequence: int, index: int) -> np.ndarray:
        """Frame `index` (counted from 0): RGB uint8 (H, W, 3).

        Raises:
            UserError: the image is missing or damaged.
        """

    def encoded(self, sequence: int, index: int) -> bytes | None:
        """The encoded picture (a JPEG file's content, say) of a frame; None where frames are no single files (videos).

        Raises:
            UserError: the file is missing.
        """
        return None

    @abstractmethod
    def frame_path(self, sequence: int, index: int) -> str:
        """Where a frame lies, for messages."""

    @abstractmethod
    def _read_annotation(self, sequence: int) -> Annotation:
        """See `annotation`."""


class StoredDataset(TrackingDataset):
    """A data set of files in a storage. Subclasses say where the files are called what."""

    def __init__(self, storage: DirectoryStorage, sequences: Sequence[str]):
        super().__init__()
        self.storage = storage
        self.sequences = list(sequences)

    def __len__(self) -> int:
        return len(self.sequences)

    @abstractmethod
    def frame_file(self, sequence: int, index: int) -> str:
        """Name of a frame's file in the storage."""

    def frame(self, sequence: int, index: int) -> np.ndarray:
        return decode_rgb(self.encoded(sequence, index), self.frame_path(sequence, index))

    def encoded(self, sequence: int, index: int) -> bytes:
        return self.storage.read(self.frame_file(sequence, index))

    def frame_path(self, sequence: int, index: int) -> str:
        return self.storage.locate(self.frame_file(sequence, index))

    def _annotation_in(self, folder: str) -> Annotation:
        """From groundtruth.txt and the label files of a sequence folder (GOT-10k, LaSOT)."""
        file = f"{folder}/groundtruth.txt"
        boxes = parse_boxes(self.storage.read_text(file), self.storage.locate(file))

        def label_text(name: str) -> str | None:
            path = f"{folder}/{name}"
            return self.storage.read_text(path) if self.storage.has_file(path) else None

        return Annotation.of(boxes, visibility(label_text, self.storage.locate(folder), len(boxes)))


def open_root(root: str | Path | None, dataset: str, field: str, layout: str) -> DirectoryStorage:
    """The storage of a data set's root folder.

    Args:
        root: the folder.
        dataset: the name in the yaml's DATASETS_NAME.
        field: the setting of lib/train/admin/local.py that holds `root`.
        layout: what is expected in the folder.

    Raises:
        UserError: the folder is missing.
    """
    if not root or not Path(root).is_dir():
        raise UserError(f"data set {dataset}: folder not found: {root or '(not set)'}. {_how_to_set(field, layout)}")
    return DirectoryStorage(root)


def nothing_found(storage: DirectoryStorage, dataset: str, field: str, layout: str) -> UserError:
    """The error for a root folder without a single sequence."""
    return UserError(f"data set {dataset}: no sequence in {storage.root}. {_how_to_set(field, layout)}")


def _how_to_set(field: str, layout: str) -> str:
    return (f"Set {field} in lib/train/admin/local.py (written by tracking/create_default_local_file.py) or the "
            f"environment variable COMPRESSTRACKER_{field.upper()}, or leave the data set out of DATASETS_NAME. "
            f"Expected layout: {layout}")


def present_only(dataset: str, names: Sequence[str], present: Collection[str]) -> list[str]:
    """Those of `names` that are `present`; a warning says how many are missing."""
    missing = [name for name in names if name not in present]
    if missing and len(missing) < len(names):
        logger.warning("data set %s: %d of %d sequences are missing and left out (%s%s)", dataset, len(missing),
                       len(names), ", ".join(missing[:3]), ", ..." if len(missing) > 3 else "")
    return [name for name in names if name in present]


def read_ranges(words: Sequence[str]) -> list[int]:
    """Whole numbers from words such as "3" and "5-8" (both ends included)."""
    numbers: list[int] = []
    for word in words:
        first, _, last = word.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def read_spec(name: str) -> list[list[str]]:
    """Words of each line of a file in lib/train/data_specs, comments left out."""
    lines = (SPECS / name).read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if line.strip() and not line.startswith("#")]
