"""Detection data in COCO's format (COCO 2017: Lin et al., ECCV 2014) as sequences of one image."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...config import COCO_PREFIX
from ...utils.errors import UserError
from ...utils.files import resolve
from ...utils.frames import IMAGE_SUFFIXES
from ...utils.sequences import split_spec
from ...utils.storage import DirectoryStorage, State, Storage, joined
from .annotation import Annotation
from .base import StoredDataset
from .index import Index
from .places import Place, archive_at

ANNOTATIONS = "annotations/instances_train2017.json"
IMAGES = ("train2017", "images/train2017")
"""Where the images may lie; the first is how the archive of COCO unpacks."""
LAYOUT = f"{ANNOTATIONS} and images/train2017/*.jpg"
OWN_LAYOUT = (f"{COCO_PREFIX}<annotation json>[@<image folder>], relative to the repository's root: a COCO instances "
              "file with images, annotations and, for each annotation, image_id and bbox; the images lie in the "
              "folder, or without one beside the file")


class Coco(StoredDataset):
    """One sequence per annotated object that is not a crowd; template and search region come from the same image.

    OSTrack marks objects of more than 50 x 50 pixels as valid, but its sampler looks at that for videos only, so small
    objects are trained on there and here. Boxes without area, which it would draw and throw away, are left out.
    The annotations are read only to build the index, where a sequence's name is its image's.

    Args:
        storage: with the annotation file and the images.
        place: where it may lie, for messages.
        annotations: the annotation file in its storage.
        images: folders in the storage; the first that is there holds the images.
        name: short name.
        source: the annotation file's storage, where it is another one.
    """

    is_video = False
    own_folders = False

    def __init__(self, storage: Storage, place: Place, annotations: str = ANNOTATIONS, images: Sequence[str] = IMAGES,
                 name: str = "coco", source: Storage | None = None):
        super().__init__(storage, place)
        self.annotations = annotations
        self.images = tuple(images)
        self.name = name
        self.source = source or storage

    @classmethod
    def own(cls, storage: Storage, place: Place) -> "Coco":
        """Of ``COCO:<annotation json>[@<image folder>]``, with the images in `storage`."""
        text, images = own_paths(place.dataset)
        source, annotations = _annotations_at(text, images, storage)
        return cls(storage, place, annotations, [""], f"coco:{Path(text).stem}", source)

    def _find(self) -> Sequence[str]:
        return self.index.texts("names")

    def _state(self) -> State:
        annotations = self.source.state([self.annotations])
        return annotations if self.source is self.storage else annotations + self.storage.state([])

    def annotation_files(self, name: str) -> list[str]:
        return [self.annotations]

    def frame_file(self, sequence: int, index: int) -> str:
        return self.sequences[sequence]

    def packed_files(self) -> Iterator[str]:
        """The annotation file and its images; of one's own image folder all of it, which annotation files may share."""
        if self.place.is_own:
            kept = (*IMAGE_SUFFIXES, ".json")
            found = [name for name in self.storage.walk() if name.lower().endswith(kept)]
        else:
            found = [self.annotations]
        yield from dict.fromkeys([*found, *self.sequences])

    def read_annotation(self, sequence: int) -> Annotation:
        return self.index.annotation(sequence)

    def _build(self) -> Index:
        names, owners, boxes = self._read()
        sized = np.flatnonzero((boxes[:, 2] > 0) & (boxes[:, 3] > 0))
        if not len(sized):
            raise self.place.nothing_found(self.storage)
        if len(sized) < len(boxes):
            self.note = f"{len(boxes) - len(sized)} of {len(boxes)} objects have no area and are left out"
        top = next((folder for folder in self.images[:-1] if self._is_there(folder)), self.images[-1])
        files = [joined(top, names[owners[i]]) for i in sized]
        if self.place.is_own and not any(map(self.storage.has_file, dict.fromkeys(files))):
            raise UserError(f"data set {self.dataset}: none of the images that {self.source.locate(self.annotations)} "
                            f"names is in {self.storage.root}, for instance {files[0]}. {self.place.how_to_set()}")
        return Index.of(np.ones(len(sized), np.int64), boxes[sized], np.ones(len(sized), bool),
                        {"names": files}, self._storage_columns(), self.note)

    def _is_there(self, folder: str) -> bool:
        outer, _, name = folder.rpartition("/")
        return name in self.storage.folders(outer)

    def _read(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Names of the images; of each object that is not a crowd the image's number and the box (xywh)."""
        if not self.source.has_file(self.annotations):
            raise UserError(f"data set {self.dataset}: annotation file not found: "
                            f"{self.source.locate(self.annotations)}. {self.place.how_to_set()}")
        try:
            content = json.loads(self.source.read(self.annotations))
            files = {image["id"]: image["file_name"] for image in content["images"]}
            position = {identity: index for index, identity in enumerate(files)}
            objects = [_object(a, position) for a in content["annotations"] if not a.get("iscrowd")]
            owners = np.array([o[0] for o in objects], dtype=np.int64)
            boxes = np.array([o[1:] for o in objects], dtype=np.float32).reshape(len(objects), 4)
        except (ValueError, KeyError, TypeError) as error:
            remedy = "correct it" if self.place.is_own else "download it again"
            raise UserError(f"data set {self.dataset}: {self.source.locate(self.annotations)} is not a COCO instances "
                            f"file ({type(error).__name__}: {error}); {remedy}") from error
        return list(files.values()), owners, boxes


def _object(annotation: dict[str, Any], position: dict[Any, int]) -> tuple[float, ...]:
    """Number of an object's image, and its box (xywh).

    Args:
        position: the number of an image by its id.

    Raises:
        ValueError: the image is not there, or the box has not four numbers.
    """
    name, image, box = annotation.get("id"), annotation["image_id"], annotation["bbox"]
    if image not in position:
        raise ValueError(f"annotation {name} has the image_id {image}, which is not among the images")
    if len(box) != 4:
        raise ValueError(f"annotation {name} has the bbox {box}; expected x, y, width, height")
    return position[image], *box


def own_paths(dataset: str) -> tuple[str, Path]:
    """Annotation file as it is written and image folder of ``COCO:<annotation json>[@<image folder>]``; without a
    folder, the images lie beside the file. A relative file is looked for from the repository's root, then in the
    folder."""
    spec = dataset.removeprefix(COCO_PREFIX)
    file, images = split_spec(spec, is_there=Path.is_file)
    return (spec.rpartition("@")[0], resolve(images)) if images else (spec, file.parent)


def _annotations_at(text: str, images: Path, storage: Storage) -> tuple[Storage, str]:
    """Where an annotation file is: on the disk, in an archive that its path leads into, or in that of the images."""
    file = resolve(text)
    for path in (file, images / text):
        if path.is_file():
            return DirectoryStorage(path.parent), path.name
    if file.is_relative_to(images):
        return storage, file.relative_to(images).as_posix()
    source = archive_at(file.parent)
    if source is None and storage.kind != "directory" and not Path(text).expanduser().is_absolute():
        return storage, text
    return source or DirectoryStorage(file.parent), file.name
