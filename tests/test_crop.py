"""Crops and boxes against the official implementation's numbers."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lib.utils.crop import (
    Crop,
    box_from_crop,
    box_to_crop,
    crop_side,
    has_content,
    normalize,
    padding_mask,
    sample_square,
    square_around,
    square_crop,
)
from lib.utils.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))
from formula import frame  # noqa: E402


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "ostrack_256_ce.npz")


@pytest.mark.parametrize("case", range(6))
def test_crop_equals_official(golden, case):
    *box, factor, size = golden[f"crop_{case}_args"]
    crop = square_crop(frame(3), box, factor, int(size))
    patch = golden[f"crop_{case}_patch"]
    assert crop.image.shape == patch.shape and crop.image.dtype == np.uint8
    assert np.abs(crop.image.astype(int) - patch.astype(int)).max() <= 1
    assert crop.scale == pytest.approx(float(golden[f"crop_{case}_resize_factor"]))
    assert crop.side == crop_side(box, factor)
    assert np.array_equal(padding_mask(crop), golden[f"crop_{case}_mask"])


@pytest.mark.parametrize("case", range(6))
@pytest.mark.parametrize("gray", [False, True])
def test_mirror_and_gray_equal_changing_the_whole_frame(golden, case, gray):
    *box, factor, size = golden[f"crop_{case}_args"]
    image = frame(3)
    whole = cv2.flip(image, 1)
    if gray:
        whole = cv2.cvtColor(cv2.cvtColor(whole, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    expected = square_crop(whole, box, factor, int(size))
    found = square_crop(image, box, factor, int(size), mirror=True, gray=gray)
    assert np.array_equal(found.image, expected.image)
    assert found.padding == expected.padding


def test_frame_is_not_changed_or_shared():
    image = frame(0)
    before = image.copy()
    crop = square_crop(image, [100, 90, 16, 16], 2.0, 32)
    crop.image[:] = 0
    assert np.array_equal(image, before)


def test_box_to_crop_equals_official(golden):
    found = box_to_crop([103, 53, 48, 40], [100, 60, 48, 40], 1.31, 256)
    assert np.allclose(found, golden["crop_transform"], atol=1e-6)


def test_boxes_there_and_back():
    anchor, size = [80.0, 60.0, 40.0, 30.0], 256
    scale = size / crop_side(anchor, 4.0)
    x, y, w, h = box_to_crop([95.0, 52.0, 33.0, 44.0], anchor, scale, size)
    back = box_from_crop([x + w / 2, y + h / 2, w, h], anchor, scale, size)
    half_pixel = 0.5 / scale
    assert np.allclose(back, [95.0 - half_pixel, 52.0 - half_pixel, 33.0, 44.0])


def test_crop_beside_the_image_is_black():
    box = [-500, -500, 20, 20]
    crop = square_crop(frame(0), box, 2.0, 64)
    assert not crop.image.any() and padding_mask(crop).all()
    assert not has_content(square_around(box, 2.0, 320, 240), 64, 16)


@pytest.mark.parametrize("box", [[0, 0, 0, 10], [0, 0, 10, -1], [0, 0, np.nan, 10], [np.nan, 0, 10, 10]])
def test_box_without_area_is_refused(box):
    with pytest.raises(UserError, match="positive"):
        square_crop(frame(0), box, 2.0, 64)


def test_has_content_follows_the_reduced_mask():
    rng = np.random.default_rng(0)
    answers, image = set(), frame(0)
    for _ in range(300):
        box = [*rng.uniform(-60, 370, 2), *rng.uniform(3, 60, 2)]
        crop = square_crop(image, box, 4.0, 128)
        found = has_content(square_around(box, 4.0, 320, 240), 128, 16)
        answers.add(found)
        assert found == (not padding_mask(crop)[::16, ::16].all())
    assert answers == {True, False}


def test_square_in_the_mirrored_image():
    square = square_around([300, 20, 48, 40], 2.0, 320, 240)
    assert any(square.padding) and square.mirrored(320).mirrored(320) == square
    left, top, right, bottom = square.inside
    assert square.mirrored(320).inside == (320 - right, top, 320 - left, bottom)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("gray", [False, True])
def test_sampling_at_the_same_scale_is_resizing(mirror, gray):
    """From a piece of the picture at its own scale the crop is that of the whole picture."""
    image, box = frame(2), [100, 70, 50, 40]
    square = square_around(box, 3.0, 320, 240)
    left, top, right, bottom = (v + margin for v, margin in zip(square.inside, (-3, -5, 4, 2), strict=True))
    out = sample_square(image[top:bottom, left:right], (left, top, right - left, bottom - top), square, 64,
                        mirror=mirror, gray=gray)
    flipped_box = [320 - square.left - square.side / 2 - 25, *box[1:]] if mirror else box
    expected = square_crop(image, flipped_box, 3.0, 64, mirror=mirror, gray=gray).image
    assert np.abs(out.astype(int) - expected).max() <= 3


def test_sampling_at_half_scale_keeps_the_place():
    """A ramp tells every pixel's place: halved and sampled, it is where it was."""
    image = np.repeat(np.arange(0, 240, 1, np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    small = cv2.resize(image, (120, 100), interpolation=cv2.INTER_AREA)
    box = [83, 61, 40, 40]
    square = square_around(box, 2.0, 240, 200)
    out = sample_square(small, (0, 0, 240, 200), square, 40)
    expected = square_crop(image, box, 2.0, 40).image
    assert np.abs(out.astype(int) - expected).max() <= 1


def test_padding_counts_the_last_row_and_column_as_outside():
    crop = square_crop(np.full((40, 40, 3), 255, np.uint8), [0, 0, 40, 40], 1.0, 40)
    assert crop.padding == (0, 0, 1, 1)
    assert not crop.image[-1].any() and not crop.image[:, -1].any() and crop.image[:-1, :-1].all()


def test_normalize():
    images = np.stack([frame(0), frame(1)])
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    out = normalize(images, mean, std)
    assert out.shape == (2, 3, 240, 320) and out.dtype == torch.float32 and out.is_contiguous()
    expected = (images[1, 7, 9].astype(np.float64) / 255 - mean) / std
    assert np.allclose(out[1, :, 7, 9], expected, atol=1e-6)
    assert torch.equal(normalize(images[0], mean, std), out[:1])
    assert isinstance(square_crop(images[0], [1, 1, 9, 9], 2, 8), Crop)
