"""What a training data set is to the sampler: sequences with annotations, and frames."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from ...utils.box_files import parse_boxes, read_visibility
from ...utils.images import decode_rgb
from ...utils.progress import progress
from ...utils.storage import State, Storage
from ...utils.threads import map_in_threads
from .annotation import Annotation
from .index import Index, load_or_build
from .places import Place

logger = logging.getLogger(__name__)

SPECS = Path(__file__).resolve().parents[1] / "data_specs"
BUILD_THREADS = 8
"""Threads that read annotation files; they mostly wait for the disk."""
ARCHIVE = "archive."
"""Start of the names of the index's columns that belong to the storage."""


class TrackingDataset(ABC):
    """Sequences of one data set.

    Attributes:
        name: short name for logs and statistics.
        is_video: False for single images, whose pairs come from one image.
    """

    name: str
    is_video = True

    @abstractmethod
    def __len__(self) -> int:
        """Number of sequences."""

    @abstractmethod
    def annotation(self, sequence: int) -> Annotation:
        """Boxes of a sequence.

        Raises:
            UserError: an annotation file is missing or wrong.
        """

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """(S,) frames and (S,) visible frames of each sequence.

        Raises:
            UserError: an annotation file is missing or wrong.
        """
        visible = [self.annotation(sequence).visible for sequence in range(len(self))]
        return np.array([len(v) for v in visible]), np.array([v.sum() for v in visible])

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


class StoredDataset(TrackingDataset):
    """A data set of files in a storage, whose annotations are in an :class:`Index` once :meth:`prepare` was called.
    Subclasses say which sequences there are and what their files are called.

    Args:
        storage: the files.
        place: where they may lie, for messages.

    Attributes:
        dataset: name in the yaml.
        note: what to tell the user about the sequences ('' for nothing), known once they are.
        missing: sequences (or parts of the data set) that should be there and are not, known once the sequences are.
        own_folders: whether each sequence has a folder of pictures of its own.
    """

    own_folders = True
    note = ""
    _index: Index | None = None

    def __init__(self, storage: Storage, place: Place):
        self.storage = storage
        self.place = place
        self.dataset = place.dataset
        self.missing: list[str] = []
        self._sequences: Sequence[str] | None = None

    def __getstate__(self) -> dict:
        """Without what the index brings along."""
        return {**vars(self), "_sequences": None, "missing": []} if self._index is not None else vars(self)

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        if self._index is not None:
            self._use(self._index)

    def prepare(self, index_dir: str) -> None:
        """Load the index, or build it: from then on annotations are read from memory that all processes share.

        Args:
            index_dir: where indices are kept; '' for nowhere.

        Raises:
            UserError: nothing there, or an annotation file is missing or wrong.
        """
        index = load_or_build(index_dir, self.dataset, self._root(), self._state(), self._build)
        self._use(index)
        if index.note or self.note:
            logger.warning("data set %s: %s", self.dataset, self.note or index.note)

    def annotation(self, sequence: int) -> Annotation:
        if self._index is not None:
            return self._index.annotation(sequence)
        return self.read_annotation(sequence)

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        return super().counts() if self._index is None else self._index.counts()

    def digest(self) -> str:
        """What tells its annotations from others: see `Index.digest`."""
        return self.index.digest()

    @property
    def index(self) -> Index:
        """The index; made in memory where there is none yet."""
        if self._index is None:
            self._use(self._build())
        return self._index

    @property
    def sequences(self) -> Sequence[str]:
        """Names of the sequences: their folders, mostly.

        Raises:
            UserError: there is none, or they are not those that they should be.
        """
        if self._sequences is None:
            self._sequences = self._find()
            if not self._sequences:
                raise self.place.nothing_found(self.storage)
        return self._sequences

    def __len__(self) -> int:
        return len(self.sequences)

    @abstractmethod
    def _find(self) -> list[str]:
        """The sequences that are there; sets `note` where some are missing."""

    @abstractmethod
    def read_annotation(self, sequence: int) -> Annotation:
        """Boxes of a sequence from its files, whatever the index says; see `annotation`."""

    @abstractmethod
    def annotation_files(self, name: str) -> list[str]:
        """What the annotation of a sequence is read from: files, and folders whose list of names matters."""

    def label_files(self, name: str) -> list[str]:
        """Those of them that hold one label of visibility per frame."""
        return []

    @abstractmethod
    def frame_file(self, sequence: int, index: int) -> str:
        """Name of a frame's file in the storage."""

    def frame_files(self, sequence: int, count: int) -> list[str]:
        """Names of the files of a sequence's first `count` frames."""
        return [self.frame_file(sequence, index) for index in range(count)]

    def packed_files(self) -> Iterator[str]:
        """Names of the files that an LMDB of the data set holds."""
        for name in self.sequences:
            yield from self.storage.walk(name)

    def made_files(self) -> dict[str, bytes]:
        """Name and content of files that such an LMDB holds in addition, as OSTrack's readers want them."""
        return {}

    def frame(self, sequence: int, index: int) -> np.ndarray:
        return decode_rgb(self.encoded(sequence, index), self.frame_path(sequence, index))

    def encoded(self, sequence: int, index: int) -> bytes:
        return self.storage.read(self.frame_file(sequence, index))

    def frame_path(self, sequence: int, index: int) -> str:
        return self.storage.locate(self.frame_file(sequence, index))

    def _root(self) -> str:
        """What tells this data set from others of the same name."""
        return f"{self.storage.kind}\0{self.storage.root}"

    def _state(self) -> State:
        """What lies there now."""
        return self.storage.state(self._state_files())

    def _state_files(self) -> Iterator[str]:
        for name in self.sequences:
            yield from self.annotation_files(name)

    def _build(self) -> Index:
        """A new index, in memory."""
        total = len(self)
        read = map_in_threads(self.read_annotation, range(total), BUILD_THREADS)
        annotations = list(progress(read, total, f"index of {self.dataset}", "sequences"))
        return Index.of_annotations(annotations, {"names": self.sequences} | self._texts(annotations),
                                    self._storage_columns(), self.note)

    def _texts(self, annotations: Sequence[Annotation]) -> dict[str, Sequence[str]]:
        """More columns of texts for the index."""
        return {}

    def _storage_columns(self) -> dict[str, np.ndarray]:
        return {ARCHIVE + name: column for name, column in self.storage.columns().items()}

    def _use(self, index: Index) -> None:
        self._index = index
        self._sequences = index.texts("names")
        self.storage.use(index.group(ARCHIVE))

    def boxes_in(self, file: str) -> np.ndarray:
        """Boxes of a box file: see :func:`lib.utils.box_files.parse_boxes`."""
        return parse_boxes(self.storage.read_text(file), self.storage.locate(file))

    def labels(self, folder: str, count: int) -> np.ndarray | None:
        """(count,) bool from the label files of a sequence: the target can be seen; None without such files."""
        return read_visibility(folder, count, self.storage) if self.label_files(folder) else None

    def _labelled_boxes(self, folder: str) -> Annotation:
        """From groundtruth.txt and the label files of a sequence folder (GOT-10k, LaSOT)."""
        boxes = self.boxes_in(f"{folder}/groundtruth.txt")
        return Annotation.of(boxes, self.labels(folder, len(boxes)))

    def _present(self, names: Sequence[str], present: Collection[str]) -> list[str]:
        """Those of `names` that are `present`; the note says how many are missing."""
        self.missing = missing = [name for name in names if name not in present]
        if missing and len(missing) < len(names):
            self.note = (f"{len(missing)} of {len(names)} sequences are missing and left out "
                         f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''})")
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
    return [line.split() for line in spec_lines(name)]


def spec_lines(name: str) -> list[str]:
    """Lines of a file in lib/train/data_specs, comments and empty lines left out."""
    lines = (SPECS / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]
