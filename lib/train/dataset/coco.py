"""Detection data in COCO's format (COCO 2017: Lin et al., ECCV 2014) as sequences of one image."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...config import COCO_PREFIX
from ...utils.box_forms import NORMALISED, to_xywh
from ...utils.errors import UserError
from ...utils.files import resolve
from ...utils.frames import IMAGE_SUFFIXES
from ...utils.images import Look, look_at
from ...utils.sequences import FORM_FILE, declared_form, require_xywh, split_spec
from ...utils.storage import DirectoryStorage, State, Storage, joined
from .annotation import Annotation
from .base import StoredDataset
from .index import Index
from .instances import Instances, parse_instances
from .places import Place, archive_at

ANNOTATIONS = "annotations/instances_train2017.json"
IMAGES = ("train2017", "images/train2017")
"""Where the images may lie; the first is how the archive of COCO unpacks."""
LOOKED_AT = 50
"""Images of one's own data that are looked at while the index is built."""
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
        forms = dict.fromkeys((joined(self.annotations.rpartition("/")[0], FORM_FILE), FORM_FILE))
        annotations = self.source.state([self.annotations, *forms])
        return annotations if self.source is self.storage else annotations + self.storage.state([])

    def annotation_files(self, name: str) -> list[str]:
        return [self.annotations]

    def frame_file(self, sequence: int, index: int) -> str:
        return self.sequences[sequence]

    def packed_files(self) -> Iterator[str]:
        """The annotation file and its images; of one's own image folder all of it, which annotation files may share."""
        if self.place.is_own:
            kept = (*IMAGE_SUFFIXES, ".json", FORM_FILE)
            names = [name for name in self.storage.walk() if name.lower().endswith(kept)]
        else:
            names = [self.annotations]
        yield from dict.fromkeys([*names, *self.sequences])

    def read_annotation(self, sequence: int) -> Annotation:
        return self.index.annotation(sequence)

    def _build(self) -> Index:
        instances = self._read()
        files = self._files(instances.names)
        looks = self._look_at_some(instances, files)
        boxes = self._boxes(instances, files, looks)
        sized = np.flatnonzero((boxes[:, 2] > 0) & (boxes[:, 3] > 0))
        if not len(sized):
            raise self.place.nothing_found(self.storage)
        names = [files[image] for image in instances.owners[sized]]
        if self.place.is_own and not any(map(self.storage.has_file, dict.fromkeys(names))):
            raise UserError(f"data set {self.dataset}: none of the images that {self.source.locate(self.annotations)} "
                            f"names is in {self.storage.root}, for instance {names[0]}. {self.place.how_to_set()}")
        sizes = instances.sizes[instances.owners]
        left_out = (f"{len(boxes) - len(sized)} of {len(boxes)} objects have no area (a width or height that is not "
                    f"positive)" + f", and {instances.boxless} more no box," * bool(instances.boxless)
                    + " and are left out")
        misfits = (f"{files[instances.owners[i]]} {other_size(look.size, sizes[i])}" for i, look in looks.items()
                   if np.isfinite(sizes[i]).all() and look.size != tuple(sizes[i]))
        losses = (f"{files[instances.owners[i]]} {look.loss}" for i, look in looks.items() if look.loss)
        notes = [left_out if len(sized) < len(boxes) or instances.boxless else "", next(misfits, ""), next(losses, "")]
        self.note = "; ".join(filter(None, notes))
        return Index.of(np.ones(len(sized), np.int64), boxes[sized].astype(np.float32), np.ones(len(sized), bool),
                        {"names": names}, {"sizes": sizes[sized]} | self._storage_columns(), self.note)

    def stated_size(self, sequence: int) -> tuple[int, int] | None:
        """Width and height that the annotation file gives for an image; None where it gives none."""
        size = self.index.numbers("sizes")[sequence]
        return tuple(size.astype(int).tolist()) if np.isfinite(size).all() else None

    def _files(self, names: Sequence[str]) -> list[str]:
        """The images in the storage."""
        top = next((folder for folder in self.images[:-1] if self._is_there(folder)), self.images[-1])
        return [joined(top, name) for name in names]

    def _boxes(self, instances: Instances, files: Sequence[str], looks: dict[int, Look]) -> np.ndarray:
        """(N, 4) float64 xywh in pixels, sizes not positive where there is no area.

        Args:
            files: the images in the storage.
            looks: object -> its image, of some.

        Raises:
            UserError: they are in another form, and nothing states it; or an image that is needed cannot be read.
        """
        file = self.source.locate(self.annotations)
        form = declared_form(self.source, self.annotations.rpartition("/")[0])
        sizes = instances.sizes[instances.owners]
        for number, look in looks.items():
            if not np.isfinite(sizes[number]).all():
                sizes[number] = look.size
        has_size = np.isfinite(sizes).all(axis=1)
        if form is None:
            require_xywh(instances.boxes, None, file)
            require_xywh(instances.boxes[has_size], sizes[has_size], file)
        elif form.startswith(NORMALISED):
            for number in np.flatnonzero(~has_size):
                sizes[number] = self._look(files[instances.owners[number]]).size
        return to_xywh(instances.boxes, form or "xywh", sizes)

    def _look_at_some(self, instances: Instances, files: Sequence[str]) -> dict[int, Look]:
        """Of one's own data, what is known of the images of some objects, evenly spread."""
        looks = {}
        total = len(instances.owners) if self.place.is_own else 0
        for number in np.unique(np.linspace(0, total - 1, min(LOOKED_AT, total)).astype(int)).tolist():
            with contextlib.suppress(UserError):  # a picture that is missing or broken is named in training
                looks[number] = self._look(files[instances.owners[number]])
        return looks

    def _look(self, file: str) -> Look:
        return look_at(partial(self.storage.read, file), self.storage.locate(file))

    def _is_there(self, folder: str) -> bool:
        outer, _, name = folder.rpartition("/")
        return name in self.storage.folders(outer)

    def _read(self) -> Instances:
        """The content of the annotation file."""
        if not self.source.has_file(self.annotations):
            raise UserError(f"data set {self.dataset}: annotation file not found: "
                            f"{self.source.locate(self.annotations)}. {self.place.how_to_set()}")
        try:
            return parse_instances(self.source.read(self.annotations))
        except ValueError as error:
            remedy = "correct it" if self.place.is_own else "download it again"
            raise UserError(f"data set {self.dataset}: {self.source.locate(self.annotations)} is not a COCO instances "
                            f"file ({error}); {remedy}") from error


def other_size(size: tuple[int, int], stated: Sequence[float]) -> str:
    """What to say of a picture whose width and height are not those that the annotations state."""
    return (f"is {size[0]} x {size[1]}, and the annotations say {stated[0]:g} x {stated[1]:g}; if its Exif data turn "
            "it, the boxes may be of the picture before that")


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
