"""Crops made on the device have OpenCV's pixels, and a tracker that uses them gives the same boxes."""


import cv2
import numpy as np
import pytest
import torch
from test_live import bright_tracker, square
from torch.utils._python_dispatch import TorchDispatchMode

from lib.deploy.fast import FastOptions, build_fast
from lib.test.tracker import Tracker
from lib.test.tracker.live import LiveTracker
from lib.test.tracker.lost import LostRule
from lib.test.tracker.redetect import Redetection
from lib.utils import device_crop
from lib.utils.crop import Square, cut_square, square_around
from lib.utils.device_crop import axes_of, cut_on_device, interpolation_weights, resize

CPU = torch.device("cpu")
BOXES = [[30, 20, 20, 16], [-5, -8, 20, 30], [50, 50, 16, 16], [8, 8, 4.1, 3.7], [24, 24, 16, 16], [0, 0, 60, 60],
         [3, 5, 0.4, 0.4], [200, 10, 9, 9], [10, -90, 12, 9], [-40, 20, 50, 9]]
"""Inside, over every border, enlarged, reduced, as they are, of one pixel, beside the frame."""


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def squares_in(image, boxes=BOXES):
    return [square_around(box, 2.0, image.shape[1], image.shape[0]) for box in boxes]


def resized(images, axes, size, flip=None, gray=()):
    pixels = torch.from_numpy(np.concatenate([image.reshape(-1, 3) for image in images]))
    return resize(pixels, *map(torch.from_numpy, interpolation_weights(axes, size, flip)), gray).numpy()


# ---- pixels


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("size", [32, 45])
def test_crops_are_opencvs(turns, size):
    """Frames of different sizes in one batch, mirrored before and turned after the resizing, grey."""
    mirror, flip, gray = bool(turns & 1), bool(turns & 2), bool(turns & 4)
    images, axes, expected, begin = [noise(97, 64), noise(40, 80, 1), noise(64, 64, 2)], [], [], 0
    for image in images:
        for place in squares_in(image):
            axes.append(axes_of(place, image.shape[1], begin, mirror=mirror))
            crop = cut_square(image, place, size, mirror=mirror, gray=gray)
            expected.append(cv2.flip(crop, 1) if flip else crop)
        begin += image.shape[0] * image.shape[1]
    found = resized(images, axes, size, [flip] * len(axes), range(len(axes)) if gray else ())
    assert found.dtype == np.uint8 and np.array_equal(found, np.stack(expected))
    assert len({crop.tobytes() for crop in expected}) > 20, "the crops differ from each other"


@pytest.mark.parametrize(("size", "sides"), [(16, range(1, 50)), (45, range(1, 140)), (64, range(1, 200)),
                                             (384, [778, 841, 1155])])
def test_every_side_is_resized_as_by_opencv(size, sides):
    """In the last ones the scale's last bits matter."""
    image = noise(sides[-1], sides[-1])
    for side in sides:
        part = image[:side, :side]
        found = resized([image], [axes_of(Square(0, 0, side, (0, 0, 0, 0)), len(image))], size)
        assert np.array_equal(found[0], cv2.resize(part, (size, size))), side


def test_all_greys_are_opencvs():
    """Every combination of 32 levels of each channel, and of the extremes."""
    levels = np.array([*range(3, 256, 8), 0, 255], np.uint8)
    image = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 34, 3)[:1156]
    for top in range(0, 1156, 34):
        place = Square(0, top, 34, (0, 0, 0, 0))
        found = resized([image], [axes_of(place, 34)], 34, gray=[0])[0]
        assert np.array_equal(found, cut_square(image, place, 34, gray=True))


def test_crops_of_one_batch_have_turns_of_their_own(monkeypatch):
    """Made in pieces, so that memory has a bound."""
    image = noise(97, 64)
    places = squares_in(image)
    mirror, flip, gray = ([bool(i & bit) for i in range(len(places))] for bit in (1, 2, 4))
    axes = [axes_of(place, 97, mirror=turned) for place, turned in zip(places, mirror, strict=True)]
    monkeypatch.setattr(device_crop, "_CHUNK", 3 * 12 * 16 * 16)
    calls, original = [], device_crop._resize
    monkeypatch.setattr(device_crop, "_resize", lambda *rest: (calls.append(len(rest[1])), original(*rest))[1])
    found = resized([image], axes, 16, flip, np.flatnonzero(gray).tolist())
    assert calls == [3, 3, 3, 1]
    for crop, place, turned, flipped, grey in zip(found, places, mirror, flip, gray, strict=True):
        expected = cut_square(image, place, 16, mirror=turned, gray=grey)
        assert np.array_equal(crop, cv2.flip(expected, 1) if flipped else expected)


# ---- frames and their copies


def copied(images, squares):
    """Rows and columns of what is copied."""
    return [region.shape for region in device_crop._regions(images, squares)]


def test_frames_of_any_size_and_memory_order():
    big = noise(200, 150, 3)
    images = [noise(97, 64), big[10:90, 20:120], noise(80, 90, 1)[..., ::-1], noise(64, 70, 2).transpose(1, 0, 2)]
    images = [image for image in images for _ in BOXES]
    squares = [square_around(box, 2.0, image.shape[1], image.shape[0])
               for image, box in zip(images, BOXES * 4, strict=True)]
    found = cut_on_device(images, squares, 32, CPU).numpy()
    assert np.array_equal(found, np.stack([cut_square(*pair, 32) for pair in zip(images, squares, strict=True)]))


def test_squares_of_one_frame_are_copied_together_where_that_is_less():
    image = noise(400, 300)
    near, far = [[100, 100, 20, 20], [110, 105, 20, 20]], [[20, 20, 20, 20], [350, 250, 20, 20]]
    corners = [[100, 100, 20, 20], [120, 120, 20, 20]]      # together 60 x 60 pixels, alone twice 40 x 40
    for boxes, expected in ((near, [(45, 50)]), (far, [(40, 40)] * 2), (corners, [(40, 40)] * 2),
                            (near + far, [(45, 50), (40, 40), (40, 40)]), ([[900, 10, 5, 5], near[0]], [(40, 40)]),
                            ([[900, 10, 5, 5]], [])):
        squares = squares_in(image, boxes)
        assert copied([image] * len(boxes), squares) == expected
        found = cut_on_device([image] * len(boxes), squares, 24, CPU).numpy()
        assert np.array_equal(found, np.stack([cut_square(image, place, 24) for place in squares]))
    assert copied([image, image.copy()], squares_in(image, near)) == [(40, 40), (40, 40)], "two objects, two copies"


def test_the_crops_of_a_redetection_are_one_copy():
    image = noise(640, 480)
    anchors = Redetection(1).anchors([300, 200, 20, 20], 4.0, 480, 640)
    squares = [square_around(box, 4.0, 640, 480) for box in anchors]
    assert len(squares) == 9 and copied([image] * 9, squares) == [(160, 160)]


def test_a_frame_may_change_once_its_crops_are_queued():
    image = noise(97, 64)
    squares = squares_in(image)
    expected = np.stack([cut_square(image, place, 32) for place in squares])
    first = cut_on_device([image] * len(squares), squares, 32, CPU)
    image[:] = 0
    second = cut_on_device([image] * len(squares), squares, 32, CPU)
    assert np.array_equal(first.numpy(), expected) and not second.any()


class Operations(TorchDispatchMode):
    """Notes the operations that compute: those whose results are no views."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func._schema.returns
        if not any(result.alias_info and not result.alias_info.is_write for result in results):
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("count", [1, 10])
def test_the_device_does_eleven_operations_and_is_not_waited_for(count):
    image = noise(97, 64)
    pixels = torch.from_numpy(image.reshape(-1, 3))
    axes = [axes_of(square, 97) for square in squares_in(image)[:count]]
    table = [torch.from_numpy(values) for values in interpolation_weights(axes, 32)]
    with Operations() as operations:
        resize(pixels, *table)
    assert len(operations.names) == 11, operations.names
    assert not {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"} & set(operations.names)


# ---- the tracker


def film(number, sizes=((160, 120),)):
    """Frames of noise with a bright square; every ten of one size, then the next."""
    for i in range(number):
        width, height = sizes[i // 10 % len(sizes)]
        image = noise(width, height, i) // 2
        image[i % 90 // 2 + 10 : i % 90 // 2 + 34, i % 70 + 10 : i % 70 + 34] += 120
        yield image


def both(model, cfg):
    """The tracker with crops of the CPU, and with the device's."""
    return [Tracker.from_model(model, cfg, crop_on_device=where) for where in (False, True)]


PLACES = [[40, 30, 24, 24], [-10, -6, 30, 20], [100, 70, 60, 50], [30, -20, 25, 30], [60, 100, 9, 14]]
"""Where the target is put from time to time, or a random model would leave it in a corner; some reach over a border."""


def track(tracker, images):
    images = iter(images)
    target = tracker.start(next(images), PLACES[0])
    results = []
    for number, image in enumerate(images):
        if number % 10 == 0:
            target.box_xywh = list(PLACES[number // 10 % len(PLACES)])
        results += tracker.step([image], [target])
    return results


def assert_same(found, expected):
    assert [result.box_xywh for result in found] == [result.box_xywh for result in expected]
    assert [result.score for result in found] == [result.score for result in expected]
    assert all(np.array_equal(a.score_map, b.score_map) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("sizes", [[(160, 120)], [(160, 120), (320, 200), (50, 70)]])
def test_a_track_of_100_frames_has_the_same_boxes(model, cfg, sizes):
    """Also of frames that change their size, so that the last box lies outside."""
    expected, found = (track(tracker, film(101, sizes)) for tracker in both(model, cfg))
    assert_same(found, expected)
    assert len(expected) == 100 and len({tuple(result.box_xywh) for result in expected}) > 60, "it does not move"


def test_models_that_take_pixels_get_them_from_the_device(model, cfg):
    fast = build_fast(model, FastOptions(take_pixels=True), mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
    expected, found = (track(tracker, film(20)) for tracker in both(fast, cfg))
    assert_same(found, expected)


def test_several_targets_in_one_frame_and_in_several(model, cfg):
    boxes = [[40, 30, 24, 24], [45, 36, 20, 30], [120, 80, 30, 20], [-4, 60, 20, 20]]
    results = []
    for tracker in both(model, cfg):
        frames = list(film(30, [(160, 120), (140, 90)]))
        targets = [tracker.start(frames[0], box) for box in boxes]
        results.append([])
        for i, image in enumerate(frames[1:]):
            images = [image, image, frames[i], image] if i % 2 else [image] * 4
            results[-1] += tracker.step(images, targets)
    assert_same(*results)


def test_redetection_finds_the_same():
    def run(where):
        core = bright_tracker()
        core.crop_on_device = where
        live = LiveTracker(core, LostRule(0.3, 0.4, 1), Redetection(1, 0.6))
        live.init_all(square(100, 100), [[100, 100, 20, 20], [40, 40, 10, 10], [2, 2, 20, 20]])
        pictures = [np.zeros((240, 320, 3), np.uint8), square(170, 100), square(170, 100), square(30, 60, 30)]
        return [result for image in pictures for result in live.update_all(image)], core.model.batches

    expected, found = run(False), run(True)
    assert found == expected and {3, 22} <= set(found[1]), "nothing was lost"
    assert any(result.lost for result in expected[0]) and not all(result.lost for result in expected[0])


def test_where_crops_are_made_by_default(monkeypatch):
    def made(device, **attributes):
        monkeypatch.setattr("lib.test.tracker.tracker.pick_device", lambda name: torch.device(name))
        model = type("Model", (), attributes)()
        return Tracker(model, search_size=64, search_factor=4.0, template_size=32, template_factor=2.0, stride=16,
                       mean=(0, 0, 0), std=(1, 1, 1), window=False, device=device).crop_on_device

    assert made("cuda") and made("cuda:1", host_inputs=False)
    assert not made("cuda", host_inputs=True) and not made("cpu")


# ---- with a GPU
