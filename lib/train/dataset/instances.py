"""The content of a COCO instances file: images, and boxes in them."""

import json
import math
from collections.abc import Iterator
from numbers import Real
from typing import Any, NamedTuple

import numpy as np


class Instances(NamedTuple):
    """Images, and the objects in them that have a box and are no crowds."""

    names: list[str]
    """Of the I images."""
    sizes: np.ndarray
    """(I, 2) float64 width and height as the file has them; NaN where it has none."""
    owners: np.ndarray
    """(N,) int64: the number of each object's image."""
    boxes: np.ndarray
    """(N, 4) float64 as they are written."""
    boxless: int
    """Objects without a box, which are left out: bbox null, empty or missing."""


class _Fault(ValueError):
    """An entry that cannot be used: what is wrong with such entries, and what is with this one."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind = kind


def parse_instances(data: bytes) -> Instances:
    """Read a COCO instances file.

    An object without a box is left out, since files of key points and captions have such; one with a box that is no
    box (not four finite numbers) or of an image that is not there makes the file wrong.

    Raises:
        ValueError: the file is no such file, or wrong. The message has each kind of fault, with its number and an
            example.
    """
    try:
        content = json.loads(data)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON text from line {error.lineno}, column {error.colno} on") from error
    except UnicodeDecodeError as error:
        raise ValueError("no JSON text in UTF-8") from error
    try:
        images, annotations = content["images"], content["annotations"]
    except (TypeError, KeyError) as error:
        raise ValueError("no object with the lists images and annotations") from error
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise ValueError("images and annotations must be lists")
    faults: dict[str, list[str]] = {}
    position: dict[Any, int] = {}
    names: list[str] = []
    sizes = []
    for number, image in enumerate(images):
        try:
            identity, name, size = _image(image, number)
            if identity in position:
                earlier_name = names[position[identity]]
                if earlier_name != name:
                    raise _Fault("images share an id", f"{earlier_name} and {name} have the id {identity!r}")
                continue
            position[identity] = len(names)
            names.append(name)
            sizes.append(size)
        except _Fault as fault:
            faults.setdefault(fault.kind, []).append(str(fault))
    objects, boxless = [], 0
    for number, annotation in enumerate(annotations):
        try:
            instance = _object(annotation, number, position)
        except _Fault as fault:
            faults.setdefault(fault.kind, []).append(str(fault))
            continue
        if instance is None:
            boxless += 1
        elif instance:
            objects.append(instance)
    if faults:
        raise ValueError("; ".join(_sentences(faults)))
    table = np.array(objects, np.float64).reshape(len(objects), 5)
    return Instances(names, np.array(sizes, np.float64).reshape(len(names), 2), table[:, 0].astype(np.int64),
                     table[:, 1:], boxless)


def _image(image: Any, number: int) -> tuple[Any, str, tuple[float, float]]:
    """Identity, file name, and width and height of an image (NaN for none)."""
    identity, name = (image.get("id"), image.get("file_name")) if isinstance(image, dict) else (None, None)
    if not isinstance(identity, str | Real) or not isinstance(name, str) or not name:
        raise _Fault("images lack an id or a file_name", f"number {number} (counted from 0) is {_short(image)}")
    width, height = image.get("width"), image.get("height")
    has_size = _is_number(width) and _is_number(height) and width > 0 and height > 0
    return identity, name, (width, height) if has_size else (math.nan, math.nan)


def _object(annotation: Any, number: int, position: dict[Any, int]) -> tuple[float, ...] | None | bool:
    """Number of an object's image, and the four numbers of its box; None without a box, False for a crowd.

    Args:
        number: its place in the file, for messages.
        position: the number of an image by its id.
    """
    if not isinstance(annotation, dict):
        raise _Fault("annotations are no objects", f"number {number} (counted from 0) is {_short(annotation)}")
    crowd, image, box = annotation.get("iscrowd"), annotation.get("image_id"), annotation.get("bbox")
    name = f"annotation {annotation.get('id', f'number {number} (counted from 0)')}"
    if crowd not in (None, 0, 1):
        raise _Fault("annotations have another iscrowd than 0 and 1", f"{name} has the iscrowd {_short(crowd)}")
    if crowd:
        return False
    if not isinstance(image, str | Real) or image not in position:
        raise _Fault("annotations are of unknown images",
                     f"{name} has the image_id {_short(image)}, which is not among the images")
    if box is None or box == []:
        return None
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise _Fault("annotations have a wrong bbox",
                     f"{name} has the bbox {_short(box)}; expected x, y, width, height")
    return position[image], *box


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    return repr(value)[:60]


def _sentences(faults: dict[str, list[str]]) -> Iterator[str]:
    for kind, details in faults.items():
        yield details[0] if len(details) == 1 else f"{len(details)} {kind}, for instance {details[0]}"
