"""COCO 2017 detection (Lin et al., ECCV 2014) as sequences of one image."""

import json
from pathlib import Path

import numpy as np

from lib.train.dataset.base import Annotation, StoredDataset, nothing_found, open_root
from lib.utils.errors import UserError

ANNOTATIONS = "annotations/instances_train2017.json"
LAYOUT = f"{ANNOTATIONS} and images/train2017/*.jpg"


class Coco(StoredDataset):
    """One sequence per annotated object that is not a crowd; template and search region come from the same image.

    OSTrack marks objects of more than 50 x 50 pixels as valid, but its sampler looks at that for videos only, so small
    objects are trained on there and here. Boxes without area, which it would draw and throw away, are left out.

    Args:
        root: the folder with `annotations` and `images`.

    Raises:
        UserError: nothing there, or the annotations are not in COCO's format.
    """

    name = "coco"
    is_video = False

    def __init__(self, root: str | Path | None):
        storage = open_root(root, "COCO17", "coco_dir", LAYOUT)
        if not storage.has_file(ANNOTATIONS):
            raise nothing_found(storage, "COCO17", "coco_dir", LAYOUT)
        self._folder = "train2017" if "train2017" in storage.folders() else "images/train2017"
        try:
            content = json.loads(storage.read(ANNOTATIONS))
            files = {image["id"]: image["file_name"] for image in content["images"]}
            objects = [(a["image_id"], *a["bbox"]) for a in content["annotations"] if not a.get("iscrowd")]
            names = list(files.values())
            position = {identity: index for index, identity in enumerate(files)}
            self._image = np.array([position[o[0]] for o in objects], dtype=np.int32)
            self._boxes = np.array([o[1:] for o in objects], dtype=np.float32).reshape(len(objects), 4)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"data set COCO17: {storage.locate(ANNOTATIONS)} is not a COCO instances file "
                            f"({type(error).__name__}: {error}); download it again") from error
        sized = (self._boxes[:, 2] > 0) & (self._boxes[:, 3] > 0)
        self._image, self._boxes = self._image[sized], self._boxes[sized]
        if not len(self._boxes):
            raise nothing_found(storage, "COCO17", "coco_dir", LAYOUT)
        super().__init__(storage, names)

    def __len__(self) -> int:
        return len(self._boxes)

    def frame_file(self, sequence: int, index: int) -> str:
        return f"{self._folder}/{self.sequences[self._image[sequence]]}"

    def _read_annotation(self, sequence: int) -> Annotation:
        return Annotation.of(self._boxes[sequence : sequence + 1])
