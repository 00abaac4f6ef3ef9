"""Photographs as the stuff of synthetic sequences: backgrounds, and objects cut out along their outlines."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..utils.errors import UserError
from ..utils.frames import IMAGE_SUFFIXES
from .textures import MARGIN, Sprite

LEAST_SIDE, LEAST_FILL = 40, 0.25
"""Objects that are smaller (px), or fill less of their box, are not cut out."""
SOFTNESS = 0.8
"""Standard deviation in px of the blur that makes an outline's edge soft."""


@dataclass(frozen=True)
class Outline:
    """An object in a photograph: the file, and its polygons, each float32 (N, 2) in px."""

    photo: str
    polygons: tuple[np.ndarray, ...]


def list_photographs(folder: str | Path) -> list[str]:
    """The pictures in a folder, by name.

    Raises:
        UserError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise UserError(f"backgrounds: no such folder: {folder}; give a folder with photographs")
    return sorted(str(path) for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def read_photograph(file: str) -> np.ndarray:
    """uint8 (H, W, 3) in OpenCV's channel order.

    Raises:
        UserError: it cannot be read.
    """
    photo = cv2.imread(file, cv2.IMREAD_COLOR)
    if photo is None:
        raise UserError(f"backgrounds: {file} cannot be read as a picture; repair or remove it")
    return photo


def read_outlines(path: str | Path, photos: Sequence[str]) -> dict[str, list[Outline]]:
    """The objects that can be cut out of photographs, by photograph.

    Args:
        path: an instances file in COCO's format, with polygons (crowds, which have none, are left out).
        photos: files; those of other names in `path` are passed over.

    Raises:
        UserError: it is no such file, or has no object of a sufficient size in any of the photographs.
    """
    by_name = {Path(photo).name: photo for photo in photos}
    found: dict[str, list[Outline]] = {}
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        owners = {image["id"]: by_name.get(Path(image["file_name"]).name) for image in content["images"]}
        for entry in content["annotations"]:
            photo, shapes = owners.get(entry["image_id"]), entry.get("segmentation")
            if photo and isinstance(shapes, list):
                outline = Outline(photo, tuple(np.array(shape, np.float32).reshape(-1, 2) for shape in shapes))
                if _is_usable(outline):
                    found.setdefault(photo, []).append(outline)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"outlines: {path} is not a readable COCO instances file ({error})") from error
    if not found:
        raise UserError(f"outlines: {path} outlines no object of at least {LEAST_SIDE} px in the photographs "
                        f"({len(photos)} pictures, for instance {Path(photos[0]).name}); give the file that belongs "
                        "to them")
    return found


def _is_usable(outline: Outline) -> bool:
    """Whether it is large enough and not only a thin line."""
    if not outline.polygons or min(map(len, outline.polygons)) < 3:
        return False
    points = np.concatenate(outline.polygons)
    sides = np.ptp(points, axis=0)
    area = sum(cv2.contourArea(polygon) for polygon in outline.polygons)
    return bool(sides.min() >= LEAST_SIDE and area >= LEAST_FILL * sides.prod())


def cut_out(outline: Outline, side: int) -> Sprite:
    """An object of a photograph as it is, with soft edges; its picture has `side` px without the margin.

    Raises:
        UserError: the photograph cannot be read.
    """
    photo = read_photograph(outline.photo)
    points = np.concatenate(outline.polygons)
    low, sides = points.min(axis=0), np.ptp(points, axis=0)
    scale = (side - 1) / sides
    to_sprite = np.float64([[scale[0], 0, MARGIN - low[0] * scale[0]], [0, scale[1], MARGIN - low[1] * scale[1]]])
    whole = (side + 2 * MARGIN,) * 2
    if scale.max() < 0.5:    # far too large: first to about the size, so that no pixel is skipped
        factor = float(2 * scale.max())
        photo = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        to_sprite[:, :2] /= factor
    colour = cv2.warpAffine(photo, to_sprite, whole, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    mask = np.zeros(whole, np.uint8)
    for polygon in outline.polygons:
        cv2.fillPoly(mask, [np.round(((polygon - low) * scale + MARGIN) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    alpha = cv2.GaussianBlur(mask.astype(np.float32) / 255.0, (0, 0), SOFTNESS)
    return Sprite(colour, np.dstack([alpha, alpha]), float(sides[0] / sides[1]))
