"""Which squares of frames make a training pair, and how each is changed: jitter and augmentation as OSTrack trains
with. Geometry only: the pixels are made by :mod:`lib.train.data.pixels` and its siblings.

The order and the numbers are those of its repository (lib/train/data/processing.py, lib/train/base_functions.py):

1. for all images together: grey with probability 0.05, mirrored with probability 0.5;
2. for each image, templates before search regions: size and centre of the box jittered, the square around it cropped
   and resized, brightness times a factor from 0.8 to 1.2 (training only), mirrored once more with probability 0.5
   (training only), normalised.

Mirroring and grey are applied to the square instead of the frame; the pixels are the same.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...utils.crop import Square, box_to_crop, crop_side, has_content, square_around

Size = tuple[int, int]
"""Width and height in pixels."""
Numbers = tuple[int, int]
"""How many templates and search regions a pair has."""


def numbers_of(cfg: Any) -> Numbers:
    """From a configuration."""
    return cfg.DATA.TEMPLATE.NUMBER, cfg.DATA.SEARCH.NUMBER


class View(NamedTuple):
    """How one of the two kinds of images of a pair is cropped."""

    size: int
    """Side of the crop in pixels."""
    factor: float
    """Side of the square in units of the box's mean side."""
    center_jitter: float
    """Width of the uniform offset of the centre in units of the jittered box's mean side."""
    scale_jitter: float
    """Standard deviation of the logarithm of the size's factors."""

    @classmethod
    def of(cls, section: Any) -> "View":
        """From DATA.TEMPLATE or DATA.SEARCH of a configuration."""
        return cls(section.SIZE, section.FACTOR, section.CENTER_JITTER, section.SCALE_JITTER)

    @classmethod
    def tracked(cls, section: Any) -> "View | None":
        """Of DATA.TEMPLATE's templates after the first, where they err as a tracker's own boxes do."""
        jitter = section.LATER_CENTER_JITTER, section.LATER_SCALE_JITTER
        return cls(section.SIZE, section.FACTOR, *jitter) if any(jitter) else None


class CropParams(NamedTuple):
    """How one crop is made of a frame."""

    square: Square
    """What is cut, in the frame as it is."""
    size: int
    """Side of the crop in pixels."""
    mirror: bool
    """Turn the square left-right before it is resized."""
    gray: bool
    """Turn it to grey before it is resized."""
    flip: bool
    """Turn the crop left-right."""
    light: float | None
    """Factor of the brightness; None leaves it."""
    box_xywh: np.ndarray
    """(4,) float32: the target in the finished crop, divided by the crop's side (see `Family.last_pixel`)."""


class PairProcessing:
    """Draws how a training sample is made of frames.

    Args:
        template, search: how to crop.
        tracked: how to crop the templates after the first, as if a tracker had found them: the box that is told of such
            a one is the one that it is cut around. None crops them as the first.
        numbers: of templates and search regions.
        stride: pixels per feature cell; a crop whose cells all lie in padding is no sample.
        gray_prob, flip_prob: probabilities of the joint changes; `flip_prob` also of the second mirroring.
        brightness: largest relative change of brightness.
        augment: False leaves out brightness and the second mirroring (validation).
        last_pixel: what boxes are divided by, see `Family`.
    """

    def __init__(self, template: View, search: View, *, tracked: View | None = None, numbers: Numbers = (1, 1),
                 stride: int = 16, gray_prob: float = 0.05, flip_prob: float = 0.5, brightness: float = 0.2,
                 augment: bool = True, last_pixel: bool = False):
        self.template = template
        self.search = search
        self.tracked = tracked
        self.views = (template, *[tracked or template] * (numbers[0] - 1), *[search] * numbers[1])
        self.stride = stride
        self.gray_prob = gray_prob
        self.flip_prob = flip_prob
        self.brightness = brightness
        self.augment = augment
        self.last_pixel = last_pixel

    @classmethod
    def of(cls, cfg: Any, augment: bool) -> "PairProcessing":
        """From a configuration."""
        data = cfg.DATA
        return cls(View.of(data.TEMPLATE), View.of(data.SEARCH), tracked=View.tracked(data.TEMPLATE),
                   numbers=numbers_of(cfg), stride=cfg.MODEL.BACKBONE.STRIDE, gray_prob=data.GRAYSCALE_PROB,
                   flip_prob=data.FLIP_PROB, brightness=data.BRIGHTNESS_JITTER, augment=augment,
                   last_pixel=cfg.family.last_pixel)

    def __call__(self, frames: Sequence[Size], boxes: Sequence[np.ndarray], rng: np.random.Generator
                 ) -> tuple[CropParams, ...] | None:
        """The crops, or None when a jittered box is too small or a crop holds nothing but padding.

        Args:
            frames: their sizes, of the templates, then of the search regions.
            boxes: (4,) xywh in pixels of each.
            rng: the only source of randomness.
        """
        gray = rng.random() < self.gray_prob
        mirror = rng.random() < self.flip_prob
        crops = []
        for frame, box, view in zip(frames, boxes, self.views, strict=True):
            crop = self._draw(frame, box, view, mirror, gray, rng)
            if crop is None:
                return None
            crops.append(crop)
        return tuple(crops)

    def _draw(self, frame: Size, box: np.ndarray, view: View, mirror: bool, gray: bool, rng: np.random.Generator
              ) -> CropParams | None:
        width, height = frame
        box = np.asarray(box, np.float64)
        if mirror:
            box = np.array([width - 1 - box[0] - box[2], *box[1:]])
        anchor = jitter_box(box, view, rng)
        if crop_side(anchor, view.factor) < 1:
            return None
        square = square_around(anchor, view.factor, width, height)
        if not has_content(square, view.size, self.stride):
            return None
        told = anchor if view is self.tracked else box
        position = box_to_crop(told, anchor, view.size / square.side, view.size, self.last_pixel)
        light, flip = None, False
        if self.augment:
            light = rng.uniform(max(0.0, 1.0 - self.brightness), 1.0 + self.brightness)
            flip = bool(rng.random() < self.flip_prob)
            if flip:
                position[0] = 1.0 - position[0] - position[2]
        return CropParams(square.mirrored(width) if mirror else square, view.size, bool(mirror), bool(gray), flip,
                          light, position.astype(np.float32))


def jitter_box(box_xywh: np.ndarray, view: View, rng: np.random.Generator) -> np.ndarray:
    """(4,) box around which to crop: width and height times exp(N(0, scale_jitter)), the centre moved by a uniform
    offset of up to half of center_jitter * sqrt(w * h) each way."""
    wh = box_xywh[2:] * np.exp(rng.standard_normal(2) * view.scale_jitter)
    reach = np.sqrt(wh.prod()) * view.center_jitter
    center = box_xywh[:2] + 0.5 * box_xywh[2:] + reach * (rng.random(2) - 0.5)
    return np.concatenate([center - 0.5 * wh, wh])
