"""Pairs of template and search crops, as a tracker sees them: what exports are checked and int8 ranges measured on."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ..config import Config
from ..utils.crop import Crop, box_to_crop, normalize, square_crop
from ..utils.errors import UserError
from ..utils.frames import open_frames
from ..utils.sequences import SequenceFiles, find_in_spec
from ..utils.window import hann_window


class CropPair(NamedTuple):
    """Crops of one target.

    Attributes:
        template, search: (1, h, w, 3) and (1, H, W, 3) uint8.
        box: (1, 4) float32, xywh of the target in 0..1 of the template crop.
    """

    template: Tensor
    search: Tensor
    box: Tensor


def crop_pairs(spec: str | None, number: int, cfg: Config) -> list[CropPair]:
    """`number` pairs, evenly spread over sequences and frames (fewer where there are not so many frames).

    The template is cut around a sequence's first box; the search around the last box that is known before its frame.

    Args:
        spec: `<folder>[@<list file>]` of sequences (see lib/utils/sequences.py); where only the first box is given, all
            crops lie around it. None makes pictures up.
        cfg: the configuration; its TEST section gives sizes and factors.

    Raises:
        UserError: no sequence there with two frames and a first box, or an unreadable frame.
    """
    if number < 1:
        raise UserError(f"{number} crops were asked for; at least 1 is needed")
    if spec is None:
        return [_synthetic_pair(np.random.default_rng(seed), cfg) for seed in range(number)]
    sequences = [s for s in find_in_spec(spec, Path.cwd()) if len(s.frames) > 1 and np.isfinite(s.boxes[0]).all()]
    if not sequences:
        raise UserError(f"no sequence in {spec} has two frames and a box in the first")
    pairs = []
    for index, sequence in enumerate(sequences):
        share = number // len(sequences) + (index < number % len(sequences))
        pairs += _pairs_of(sequence, share, cfg)
        sequence.frames.close()
    return pairs


UNLABELLED_BOXES, MOST_FRAMES_APART = 8, 10
"""Random boxes of which the one with most detail is taken, and the frames between two crops at most."""


def unlabelled_pairs(path: str | Path, number: int, cfg: Config) -> list[CropPair]:
    """`number` pairs from frames without boxes: crops around a place with much detail in a frame, and around nearly the
    same place in one of the next. The same for the same frames.

    Args:
        path: a video file, or a folder of pictures.
        cfg: the configuration; its TEST section gives sizes and factors.

    Raises:
        UserError: there are fewer than two frames, or one cannot be read.
    """
    frames = open_frames(path)
    if len(frames) < 2:
        raise UserError(f"{path} has {len(frames)} frame; at least 2 are needed")
    generator, test, pairs = np.random.default_rng(0), cfg.TEST, []
    for position in np.linspace(0, len(frames) - 2, number):
        first = int(position)
        second = min(len(frames) - 1, first + int(generator.integers(1, MOST_FRAMES_APART + 1)))
        image, later = frames[first], frames[second]
        box = _detailed_box(image, generator)
        moved = [box[0] + generator.normal(0, 0.2 * box[2]), box[1] + generator.normal(0, 0.2 * box[3]), *box[2:]]
        pairs.append(_pair(square_crop(image, box, test.TEMPLATE_FACTOR, test.TEMPLATE_SIZE),
                           square_crop(later, moved, test.SEARCH_FACTOR, test.SEARCH_SIZE), box, cfg))
    frames.close()
    return pairs


def _detailed_box(image: np.ndarray, generator: np.random.Generator) -> list[float]:
    """Of some random boxes, xywh in pixels, the one whose pixels differ most from their neighbours."""
    height, width = image.shape[:2]
    edges = np.abs(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F))
    boxes = []
    for _ in range(UNLABELLED_BOXES):
        w, h = (float(side) * min(height, width) for side in generator.uniform(0.1, 0.35, 2))
        boxes.append([float(generator.uniform(0, width - w)), float(generator.uniform(0, height - h)), w, h])
    return max(boxes, key=lambda box: edges[int(box[1]):int(box[1] + box[3]) + 1,
                                            int(box[0]):int(box[0] + box[2]) + 1].mean())


def _pairs_of(sequence: SequenceFiles, number: int, cfg: Config) -> list[CropPair]:
    """Pairs of one sequence."""
    if number == 0:
        return []
    test, last = cfg.TEST, len(sequence.frames) - 1
    template = square_crop(sequence.frames[0], sequence.boxes[0], test.TEMPLATE_FACTOR, test.TEMPLATE_SIZE)
    pairs = []
    for frame in sorted({round(position) for position in np.linspace(1, last, number)}):
        previous = np.flatnonzero(np.isfinite(sequence.boxes[:frame]).all(axis=1))[-1]
        search = square_crop(sequence.frames[frame], sequence.boxes[previous], test.SEARCH_FACTOR, test.SEARCH_SIZE)
        pairs.append(_pair(template, search, sequence.boxes[0], cfg))
    return pairs


def _synthetic_pair(generator: np.random.Generator, cfg: Config) -> CropPair:
    """Crops of a smooth random picture."""
    coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
    x, y, w, h = (float(generator.uniform(low, high)) for low, high in ((100, 400), (100, 300), (30, 120), (30, 120)))
    test, box = cfg.TEST, [x, y, w, h]
    moved = [x + generator.uniform(-w / 2, w / 2), y + generator.uniform(-h / 2, h / 2), w, h]
    return _pair(square_crop(image, box, test.TEMPLATE_FACTOR, test.TEMPLATE_SIZE),
                 square_crop(image, moved, test.SEARCH_FACTOR, test.SEARCH_SIZE), box, cfg)


def _pair(template: Crop, search: Crop, box_xywh: Sequence[float], cfg: Config) -> CropPair:
    box = box_to_crop(box_xywh, box_xywh, template.scale, template.image.shape[0], cfg.family.last_pixel)
    crops = (torch.from_numpy(crop.image)[None] for crop in (template, search))
    return CropPair(*crops, torch.from_numpy(box.astype(np.float32))[None])


def model_inputs(pair: CropPair, cfg: Config, take_pixels: bool) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Templates, search and further inputs, as a model takes them in most frames."""
    crops = pair[:2] if take_pixels else [normalize(crop.numpy(), cfg.DATA.MEAN, cfg.DATA.STD) for crop in pair[:2]]
    return usual_inputs(cfg, *crops, pair.box)


def usual_inputs(cfg: Config, template: Tensor, search: Tensor, boxes_xywh: Tensor
                 ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The inputs of a model in most frames of a video (`Rules.usual`).

    Args:
        template, search: (B, ...) crops or pixels.
        boxes_xywh: (B, 4) in 0..1 of the template crops.
    """
    state = cfg.family.rules_of(cfg).usual(template.unsqueeze(1), boxes_xywh.unsqueeze(1))
    return state.templates.squeeze(1), search, dict(state.further)


def changing_sizes(cfg: Config) -> dict[str, tuple[int, ...]]:
    """Input (template, or what the family takes besides) -> its dimensions whose sizes change while a target is
    followed: those that differ between the first frame and most frames. Inputs without any are left out."""
    side, rules = cfg.TEST.TEMPLATE_SIZE, cfg.family.rules_of(cfg)
    crop, box = torch.zeros(1, 1, 3, side, side), torch.tensor([[[0.25, 0.25, 0.5, 0.5]]])
    first, later = ({"template": state.templates, **state.further} for state in (rules.start(crop, box),
                                                                                rules.usual(crop, box)))
    changing = {name: tuple(axis for axis, sizes in enumerate(zip(tensor.shape, later[name].shape, strict=True))
                            if len(set(sizes)) > 1) for name, tensor in first.items()}
    return {name: axes for name, axes in changing.items() if axes}


def score_weights(cfg: Config) -> Tensor:
    """(S, S) weights of the scores when a tracker of this configuration looks for the best cell."""
    side = cfg.TEST.SEARCH_SIZE // cfg.MODEL.BACKBONE.STRIDE
    return hann_window(side) if cfg.TEST.WINDOW else torch.ones(side, side)
