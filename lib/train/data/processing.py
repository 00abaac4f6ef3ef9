"""From two frames with boxes to two normalised crops: jitter and augmentation as OSTrack trains with.

The order and the numbers are those of its repository (lib/train/data/processing.py, lib/train/base_functions.py):

1. for both images together: grey with probability 0.05, mirrored with probability 0.5;
2. for each image: size and centre of the box jittered, the square around it cropped and resized, brightness times a
   factor from 0.8 to 1.2 (training only), mirrored once more with probability 0.5 (training only), normalised.

Mirroring and grey are applied to the square instead of the frame; the pixels are the same.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from lib.utils.crop import box_to_crop, crop_side, has_content, square_crop


class View(NamedTuple):
    """How one of the two images of a pair is cropped."""

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


class PairProcessing:
    """Makes a training sample of two frames.

    Args:
        template, search: how to crop.
        mean, std: of the three channels, for values in 0..1.
        stride: pixels per feature cell; a crop whose cells all lie in padding is no sample.
        gray_prob, flip_prob: probabilities of the joint changes; `flip_prob` also of the second mirroring.
        brightness: largest relative change of brightness.
        augment: False leaves out brightness and the second mirroring (validation).
    """

    def __init__(self, template: View, search: View, *, mean: Sequence[float], std: Sequence[float], stride: int = 16,
                 gray_prob: float = 0.05, flip_prob: float = 0.5, brightness: float = 0.2, augment: bool = True):
        self.template = template
        self.search = search
        self.mean = np.asarray(mean, np.float32)[:, None]
        self.std = np.asarray(std, np.float32)[:, None]
        self.stride = stride
        self.gray_prob = gray_prob
        self.flip_prob = flip_prob
        self.brightness = brightness
        self.augment = augment

    @classmethod
    def of(cls, cfg: Any, augment: bool) -> "PairProcessing":
        """From a configuration."""
        data = cfg.DATA
        return cls(View.of(data.TEMPLATE), View.of(data.SEARCH), mean=data.MEAN, std=data.STD,
                   stride=cfg.MODEL.BACKBONE.STRIDE, gray_prob=data.GRAYSCALE_PROB, flip_prob=data.FLIP_PROB,
                   brightness=data.BRIGHTNESS_JITTER, augment=augment)

    def __call__(
        self,
        template_image: np.ndarray,
        template_box: np.ndarray,
        search_image: np.ndarray,
        search_box: np.ndarray,
        rng: np.random.Generator,
    ) -> dict[str, Tensor] | None:
        """One sample, or None when a jittered box is too small or a crop holds nothing but padding.

        Args:
            template_image, search_image: (H, W, 3) uint8; they are not changed.
            template_box, search_box: (4,) xywh in pixels.
            rng: the only source of randomness.

        Returns:
            template (3, h, w), search (3, H, W) normalised float32; template_box, search_box (4,) float32 xywh
            divided by the crop's side.
        """
        gray = rng.random() < self.gray_prob
        mirror = rng.random() < self.flip_prob
        template = self._make(template_image, template_box, self.template, mirror, gray, rng)
        if template is None:
            return None
        search = self._make(search_image, search_box, self.search, mirror, gray, rng)
        if search is None:
            return None
        return {"template": template[0], "template_box": template[1], "search": search[0], "search_box": search[1]}

    def _make(
        self, image: np.ndarray, box: np.ndarray, view: View, mirror: bool, gray: bool, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor] | None:
        box = np.asarray(box, np.float64)
        if mirror:
            box = np.array([image.shape[1] - 1 - box[0] - box[2], *box[1:]])
        anchor = jitter_box(box, view, rng)
        if crop_side(anchor, view.factor) < 1:
            return None
        crop = square_crop(image, anchor, view.factor, view.size, mirror=mirror, gray=gray)
        if not has_content(crop, self.stride):
            return None
        position = box_to_crop(box, anchor, crop.scale, view.size)
        pixels, light = crop.image, None
        if self.augment:
            light = rng.uniform(max(0.0, 1.0 - self.brightness), 1.0 + self.brightness)
            if rng.random() < self.flip_prob:
                pixels = cv2.flip(pixels, 1)
                position[0] = 1.0 - position[0] - position[2]
        return self._normalised(pixels, light), torch.from_numpy(position.astype(np.float32))

    def _normalised(self, pixels: np.ndarray, light: float | None) -> Tensor:
        """(S, S, 3) uint8 -> (3, S, S) float32, through one table of 256 values per channel."""
        levels = np.arange(256, dtype=np.float32)
        values = levels / 255 if light is None else np.clip(levels * np.float32(light / 255.0), 0.0, 1.0)
        tables = (values - self.mean) / self.std
        out = np.empty((3, *pixels.shape[:2]), np.float32)
        for plane, table, target in zip(cv2.split(pixels), tables, out, strict=True):
            cv2.LUT(plane, table, dst=target)
        return torch.from_numpy(out)


def jitter_box(box_xywh: np.ndarray, view: View, rng: np.random.Generator) -> np.ndarray:
    """(4,) box around which to crop: width and height times exp(N(0, scale_jitter)), the centre moved by a uniform
    offset of up to half of center_jitter * sqrt(w * h) each way."""
    wh = box_xywh[2:] * np.exp(rng.standard_normal(2) * view.scale_jitter)
    reach = np.sqrt(wh.prod()) * view.center_jitter
    center = box_xywh[:2] + 0.5 * box_xywh[2:] + reach * (rng.random(2) - 0.5)
    return np.concatenate([center - 0.5 * wh, wh])
