"""Detection data in COCO's format (COCO 2017: Lin et al., ECCV 2014) as sequences of one image."""

import json
from collections.abc import Iterator, Sequence

import numpy as np

from lib.train.dataset.annotation import Annotation
from lib.train.dataset.base import StoredDataset
from lib.train.dataset.index import Index
from lib.train.dataset.places import Place
from lib.train.dataset.storage import State, Storage
from lib.utils.errors import UserError

ANNOTATIONS = "annotations/instances_train2017.json"
IMAGES = ("train2017", "images/train2017")
"""Where the images may lie; the first is how the archive of COCO unpacks."""
LAYOUT = f"{ANNOTATIONS} and images/train2017/*.jpg"


class Coco(StoredDataset):
    """One sequence per annotated object that is not a crowd; template and search region come from the same image.

    OSTrack marks objects of more than 50 x 50 pixels as valid, but its sampler looks at that for videos only, so small
    objects are trained on there and here. Boxes without area, which it would draw and throw away, are left out.
    The annotations are read only to build the index, where a sequence's name is its image's.

    Args:
        storage: with the annotation file and the images.
        place: where it may lie, for messages.
        annotations: the annotation file in the storage.
        images: folders in the storage; the first that is there holds the images.
        name: short name.
    """

    is_video = False
    own_folders = False

    def __init__(self, storage: Storage, place: Place, annotations: str = ANNOTATIONS, images: Sequence[str] = IMAGES,
                 name: str = "coco"):
        super().__init__(storage, place)
        self.annotations = annotations
        self.images = tuple(images)
        self.name = name

    def _find(self) -> Sequence[str]:
        return self.index.texts("names")

    def _state(self) -> State:
        return self.storage.state([self.annotations])

    def annotation_files(self, name: str) -> list[str]:
        return [self.annotations]

    def frame_file(self, sequence: int, index: int) -> str:
        return self.sequences[sequence]

    def packed_files(self) -> Iterator[str]:
        yield self.annotations
        yield from dict.fromkeys(self.sequences)

    def read_annotation(self, sequence: int) -> Annotation:
        return self.index.annotation(sequence)

    def _build(self) -> Index:
        names, owners, boxes = self._read()
        sized = np.flatnonzero((boxes[:, 2] > 0) & (boxes[:, 3] > 0))
        if not len(sized):
            raise self.place.nothing_found(self.storage)
        if len(sized) < len(boxes):
            self.note = f"{len(boxes) - len(sized)} of {len(boxes)} objects have no area and are left out"
        top = next((folder for folder in self.images if folder in self._folders()), self.images[-1])
        prefix = f"{top}/" if top else ""
        return Index.of(np.ones(len(sized), np.int64), boxes[sized], np.ones(len(sized), bool),
                        {"names": [prefix + names[owners[i]] for i in sized]}, self._storage_columns(), self.note)

    def _folders(self) -> set[str]:
        """Which of the folders that may hold the images are there."""
        return {folder for folder in self.images
                if folder.rpartition("/")[2] in self.storage.folders(folder.rpartition("/")[0])}

    def _read(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Names of the images; of each object that is not a crowd the image's number and the box (xywh)."""
        if not self.storage.has_file(self.annotations):
            raise self.place.nothing_found(self.storage)
        try:
            content = json.loads(self.storage.read(self.annotations))
            files = {image["id"]: image["file_name"] for image in content["images"]}
            objects = [(a["image_id"], *a["bbox"]) for a in content["annotations"] if not a.get("iscrowd")]
            position = {identity: index for index, identity in enumerate(files)}
            owners = np.array([position[o[0]] for o in objects], dtype=np.int64)
            boxes = np.array([o[1:] for o in objects], dtype=np.float32).reshape(len(objects), 4)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"data set {self.dataset}: {self.storage.locate(self.annotations)} is not a COCO instances "
                            f"file ({type(error).__name__}: {error}); download it again") from error
        return list(files.values()), owners, boxes
