"""A folder of rendered JPEG frames with a moving target, to measure loaders with."""

import logging
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from ...utils.errors import UserError
from ...utils.files import atomic_write, write_text

logger = logging.getLogger(__name__)

QUALITY = 95
_OCTAVES = 7
_TRIES = 12


def render_frames(folder: str | Path, *, count: int, width: int, height: int, kilobytes: int, seed: int = 0) -> Path:
    """Render sequences of textured frames, once: a folder that is there and complete is used again.

    Args:
        folder: gets one folder per sequence of 25 frames, with a box file, as ``FOLDER:`` data sets are laid out.
        count: frames in all, rounded up to whole sequences.
        width, height: of the frames in pixels.
        kilobytes: size of a frame's file (1000 bytes), reached by the strength of the texture at quality 95.
        seed: of the pictures and the boxes.

    Returns:
        The folder.

    Raises:
        UserError: frames of this size cannot have so many kilobytes, or the folder cannot be written.
    """
    folder = Path(folder)
    length = 25
    names = [f"rendered-{number:03d}" for number in range(-(-count // length))]
    strength = None
    for number, name in enumerate(names):
        boxes_file = folder / name / "groundtruth_rect.txt"
        if boxes_file.is_file():
            continue
        rng = np.random.default_rng([seed, number])
        canvas = _texture(rng, width + 4 * length, height + 4 * length)
        if strength is None:
            strength = _fit(canvas[:height, :width], kilobytes, rng)
            logger.info("rendering %d sequences of %d frames into %s", len(names), length, folder)
        boxes = _path(rng, length, width, height)
        for frame, box in enumerate(boxes):
            image = canvas[3 * frame :, 2 * frame :][:height, :width].copy()
            x, y, w, h = box.astype(int)
            image[y : y + h, x : x + w] = 1.5 * image[y : y + h, x : x + w] - 20
            with atomic_write(folder / name / "img" / f"{frame + 1:08d}.jpg") as temporary:
                temporary.write_bytes(_encode(image, strength, rng))
        write_text(boxes_file, "".join(",".join(f"{v:.2f}" for v in box) + "\n" for box in boxes))
    return folder


def _texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """(height, width, 3) float32 around 128: noise of many sizes, the larger the stronger, as in photographs."""
    image = np.zeros((height, width, 3), np.float32)
    for octave in range(1, _OCTAVES + 1):
        cell = 2**octave
        noise = rng.standard_normal((height // cell + 2, width // cell + 2, 3), dtype=np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * cell**0.5
    return 128 + 40 * (image - image.mean()) / image.std()


def _encode(image: np.ndarray, strength: float, rng: np.random.Generator) -> bytes:
    grain = rng.standard_normal(image.shape[:2], dtype=np.float32)[:, :, None] * strength
    return simplejpeg.encode_jpeg(np.clip(image + grain, 0, 255).astype(np.uint8), QUALITY, "RGB", "420")


def _fit(image: np.ndarray, kilobytes: int, rng: np.random.Generator) -> float:
    """The strength of grain at which the encoded picture has the size asked for."""
    low, high = 0.0, 60.0
    for _ in range(_TRIES):
        middle = (low + high) / 2
        if len(_encode(image, middle, rng)) < 1000 * kilobytes:
            low = middle
        else:
            high = middle
    reached = len(_encode(image, low, rng)) / 1000
    if abs(reached - kilobytes) > 0.1 * kilobytes:
        raise UserError(f"frames of {image.shape[1]} x {image.shape[0]} pixels come to {reached:.0f} kB, not to "
                        f"{kilobytes} kB; ask for another size")
    return low


def _path(rng: np.random.Generator, length: int, width: int, height: int) -> np.ndarray:
    """(length, 4) boxes xywh: one target that wanders, its mean side 5 to 25 % of the frame's."""
    side = np.sqrt(width * height) * rng.uniform(0.05, 0.25)
    shape = np.exp(rng.uniform(-0.4, 0.4))
    w, h = side * shape, side / shape
    steps = np.cumsum(rng.normal(0, side / 20, (length, 2)), axis=0)
    start = rng.uniform(0.25, 0.75, 2) * (width, height)
    corner = np.clip(start + steps - (w / 2, h / 2), 0, np.array([width - w - 1, height - h - 1]))
    return np.column_stack([corner, np.full(length, w), np.full(length, h)])
