"""Draw boxes and text on frames and put frames together. Images are RGB uint8 (H, W, 3) throughout."""

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from .images import color_map, copy_image, fit_image, save_image
from .video import VideoWriter

__all__ = ["PALETTE", "VideoWriter", "draw_boxes", "draw_score_map", "fit_image", "image_strip", "is_present",
           "save_image"]

Color = tuple[int, int, int]

PALETTE: tuple[Color, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""The colours of Okabe and Ito, which people with any colour vision can tell apart."""

_WHITE: Color = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SHIFT = 4  # OpenCV takes coordinates as integers with this many fractional bits
_LIMIT = 1 << 14  # pixels; keeps wild predictions inside what OpenCV's fixed-point drawing can hold


def draw_boxes(
    image: np.ndarray,
    boxes: Mapping[str, Sequence[float] | None],
    colors: Mapping[str, Color] | None = None,
    text: str | Sequence[str] | None = None,
    scores: Mapping[str, float] | None = None,
    legend: bool = False,
) -> np.ndarray:
    """Draw labelled boxes on a copy of an image; lines and letters grow with the image.

    Args:
        image: (H, W, 3) RGB uint8; not changed.
        boxes: label -> xywh in pixels. None, NaN or a size that is not positive means absent: nothing is drawn.
            An empty label draws the box without a tag.
        colors: label -> RGB; labels that are missing take the palette's colours in the order of `boxes`.
        text: one or several lines for the top left corner.
        scores: label -> number shown behind the label.
        legend: list the labels in their colours below `text` instead of beside the boxes, where many close boxes would
            hide the target under their tags.

    Returns:
        (H, W, 3) RGB uint8.

    Raises:
        ValueError: `image` is not (H, W, 3) uint8.
    """
    canvas = copy_image(image)
    scale = _scale(canvas)
    colors = {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(boxes)} | dict(colors or {})
    present = {label: [float(v) for v in box] for label, box in boxes.items() if is_present(box)}
    for label, box in present.items():
        _draw_box(canvas, box, colors[label], scale)
    captions = {label: f"{label} {scores[label]:.2f}".strip() if scores and label in scores else label
                for label in boxes}
    lines = [(line, _WHITE) for line in ([text] if isinstance(text, str) else text or [])]
    if legend:
        lines += [(caption, colors[label]) for label, caption in captions.items() if caption]
    occupied = [_draw_lines(canvas, lines, scale)] if lines else []
    for label, box in present.items():
        if captions[label] and not legend:
            occupied.append(_draw_tag(canvas, captions[label], box, colors[label], scale, occupied))
    return canvas


def is_present(box_xywh: Sequence[float] | None) -> bool:
    """Whether a box stands for a visible target: four finite numbers with a positive size."""
    if box_xywh is None:
        return False
    values = [float(v) for v in box_xywh]
    return len(values) == 4 and all(map(math.isfinite, values)) and values[2] > 0 and values[3] > 0


def draw_score_map(image: np.ndarray, score_map: np.ndarray, fraction: float = 0.25) -> np.ndarray:
    """Put a heat map into the lower right corner of a copy of an image.

    Args:
        image: (H, W, 3) RGB uint8.
        score_map: (S, S) numbers; 0 is dark and 1 is bright, values outside are clipped.
        fraction: side of the inset as a part of the image's shorter side.

    Returns:
        (H, W, 3) RGB uint8.
    """
    canvas = copy_image(image)
    height, width = canvas.shape[:2]
    side = max(8, round(fraction * min(height, width)))
    inset = cv2.resize(color_map(score_map), (side, side), interpolation=cv2.INTER_NEAREST)
    border = max(1, round(2 * _scale(canvas)))
    inset = cv2.copyMakeBorder(inset, border, border, border, border, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    side = min(inset.shape[0], height, width)
    canvas[height - side:, width - side:] = inset[:side, :side]
    return canvas


def image_strip(
    images: Sequence[np.ndarray],
    columns: int,
    *,
    cell_width: int | None = None,
    captions: Sequence[str] | None = None,
    gap: int = 6,
    background: Color = (255, 255, 255),
) -> np.ndarray:
    """Tile frames into one picture, row by row.

    Args:
        images: (H, W, 3) RGB uint8 each; sizes may differ, every image is fitted into the cell of the first one.
        columns: cells per row; the last row may stay part empty.
        cell_width: width of a cell in pixels (None: the first image's); its height follows the first image's shape.
        captions: one line per image, written into its top left corner.
        gap: pixels between and around the cells.
        background: RGB between the cells.

    Returns:
        RGB uint8 picture.

    Raises:
        ValueError: no image, `columns` or `cell_width` under 1, or a wrong number of captions.
    """
    if not images or columns < 1 or (cell_width is not None and cell_width < 1):
        raise ValueError("image_strip needs at least one image, and columns and cell_width of at least 1")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} images")
    first_height, first_width = images[0].shape[:2]
    width = cell_width or first_width
    height = max(1, round(first_height * width / first_width))
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    picture = np.empty((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), np.uint8)
    picture[:] = background
    for i, image in enumerate(images):
        cell = fit_image(image, (width, height), background)
        if captions is not None and captions[i]:
            _draw_lines(cell, [(captions[i], _WHITE)], _scale(cell))
        top = gap + (i // columns) * (height + gap)
        left = gap + (i % columns) * (width + gap)
        picture[top:top + height, left:left + width] = cell
    return picture


def _scale(image: np.ndarray) -> float:
    """Size of lines and letters relative to those of a 480 pixel high frame."""
    return min(max(min(image.shape[:2]) / 480, 0.45), 4.0)


def _ink(color: Color) -> Color:
    """Black or white, whichever reads better on `color` (relative luminance of WCAG 2, threshold of equal contrast)."""
    linear = [(v / 3294.6 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4) for v in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def _draw_box(canvas: np.ndarray, box_xywh: list[float], color: Color, scale: float) -> None:
    """An anti-aliased rectangle with sub-pixel corners, on a thin dark rim that keeps it visible on any ground."""
    x, y, w, h = box_xywh
    corners = [round(min(max(v, -_LIMIT), _LIMIT) * (1 << _SHIFT)) for v in (x, y, x + w, y + h)]
    thickness = max(1, round(2.5 * scale))
    for paint, line in (((20, 20, 20), thickness + 2), (color, thickness)):
        cv2.rectangle(canvas, corners[:2], corners[2:], paint, line, cv2.LINE_AA, _SHIFT)


def _text_size(text: str, scale: float) -> tuple[int, int, int, float, int]:
    """Width, ascent and descent in pixels of one line, and OpenCV's font scale and stroke for it."""
    font_scale, stroke = 0.6 * scale, max(1, round(1.4 * scale))
    (width, ascent), descent = cv2.getTextSize(text, _FONT, font_scale, stroke)
    return width, ascent, descent, font_scale, stroke


def _draw_tag(canvas, caption: str, box_xywh, color: Color, scale: float, occupied) -> tuple[int, int, int, int]:
    """A filled tag with the caption at a free place by the box; returns its left, top, right, bottom."""
    height, width = canvas.shape[:2]
    text_width, ascent, descent, font_scale, stroke = _text_size(caption, scale)
    pad = max(2, round(4 * scale))
    tag_width, tag_height = text_width + 2 * pad, ascent + descent + 2 * pad
    x, y, w, h = (round(min(max(v, -_LIMIT), _LIMIT)) for v in box_xywh)
    left = min(max(0, x), max(0, width - tag_width))
    outside = max(1, round(1.5 * scale))
    tops = [y - tag_height - outside, y + h + outside, y + outside, y - 2 * (tag_height + outside),
            y + h + tag_height + 2 * outside]
    tops = [min(max(0, top), max(0, height - tag_height)) for top in tops]

    def covered(top: int) -> int:
        """Pixels of a tag at `top` that other tags already cover."""
        return sum(
            max(0, min(left + tag_width, r) - max(left, other_left)) * max(0, min(top + tag_height, b) - max(top, t))
            for other_left, t, r, b in occupied)

    top = min(tops, key=covered)
    cv2.rectangle(canvas, (left, top), (left + tag_width - 1, top + tag_height - 1), color, cv2.FILLED)
    cv2.putText(canvas, caption, (left + pad, top + pad + ascent), _FONT, font_scale, _ink(color), stroke, cv2.LINE_AA)
    return left, top, left + tag_width, top + tag_height


def _draw_lines(canvas: np.ndarray, lines: Sequence[tuple[str, Color]], scale: float) -> tuple[int, int, int, int]:
    """Lines of text, each with its colour, on a darkened panel in the top left corner; returns the panel's left, top,
    right, bottom."""
    sizes = [_text_size(line, scale) for line, _ in lines]
    pad = max(2, round(5 * scale))
    step = max(ascent + descent for _, ascent, descent, _, _ in sizes) + pad
    right = min(canvas.shape[1], max(size[0] for size in sizes) + 2 * pad)
    bottom = min(canvas.shape[0], step * len(lines) + pad)
    panel = canvas[:bottom, :right]
    panel[:] = panel // 3
    for i, ((line, color), (_, ascent, _, font_scale, stroke)) in enumerate(zip(lines, sizes, strict=True)):
        cv2.putText(canvas, line, (pad, pad + i * step + ascent), _FONT, font_scale, color, stroke, cv2.LINE_AA)
    return 0, 0, right, bottom
