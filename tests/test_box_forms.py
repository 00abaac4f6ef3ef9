"""Which form boxes are in: told where the numbers are clear, never of boxes that are right."""

import numpy as np
import pytest

from lib.utils.box_forms import FORMS, could_be_corners, suspect_form, to_xywh, why_suspected

SIZE = (160, 120)


def walk(frames=40, start=(20, 30), step=(2.5, 1), size=(30, 24)):
    """(N, 4) xywh of a target that crosses the picture."""
    number = np.arange(frames)[:, None]
    return np.hstack([np.add(start, number * step), np.tile(size, (frames, 1))]).astype(float)


def written(boxes, form, size=SIZE):
    """xywh boxes in another form."""
    boxes = boxes.copy()
    if form.endswith("xyxy"):
        boxes[:, 2:] += boxes[:, :2]
    elif form.endswith("cxcywh"):
        boxes[:, :2] += boxes[:, 2:] / 2
    return boxes / np.tile(size, 2) if form.startswith("normalised") else boxes


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_turned_back(form):
    numbers = written(walk(), form)
    np.testing.assert_allclose(to_xywh(numbers, form, SIZE), walk())
    sizes = np.tile(SIZE, (len(numbers), 1))
    np.testing.assert_allclose(to_xywh(numbers, form, sizes), walk())


@pytest.mark.parametrize("form", ["xyxy", "normalised-xywh", "normalised-xyxy"])
@pytest.mark.parametrize("sized", [True, False])
def test_other_forms_are_told(form, sized):
    numbers = written(walk(), form)
    numbers[3], numbers[9] = np.nan, 0  # absent targets
    size = np.tile(SIZE, (40, 1)) if sized else SIZE
    assert suspect_form(numbers, size) == form
    assert "boxes" in why_suspected(form, numbers, size)


def test_corners_at_the_upper_left_are_told_by_their_motion():
    numbers = written(walk(start=(5, 5), step=(1, .5)), "xyxy")
    assert (numbers[:, :2] + numbers[:, 2:] < SIZE).all()
    assert suspect_form(numbers, SIZE) == "xyxy" and "follow x and y" in why_suspected("xyxy", numbers, SIZE)


@pytest.mark.parametrize(("name", "boxes"), [
    ("a usual sequence", walk()),
    ("beyond the picture", walk(start=(100, 80), step=(1, 1))),
    ("a pixel in the corner", np.tile([0., 0, 1, 1], (20, 1))),
    ("a pixel elsewhere", walk(size=(1, 1))),
    ("less than a pixel", walk(size=(.4, .4))),
    ("nearly the whole picture", np.tile([3., 2, 150, 110], (20, 1)) + np.random.default_rng(0).normal(0, 2, (20, 4))),
    ("larger than the picture", np.tile([-30., -20, 250, 200], (20, 1))),
    ("growing", np.linspace([40, 30, 45, 35], [10, 5, 120, 100], 50)),
    ("shrinking", np.linspace([10, 5, 120, 100], [40, 30, 45, 35], 50)),
    ("only one", np.array([[40., 30, 90, 80]])),
    ("never there", np.full((9, 4), np.nan)), ("no boxes", np.empty((0, 4))),
])
def test_right_boxes_raise_no_suspicion(name, boxes):
    assert suspect_form(boxes, SIZE) is None
    assert suspect_form(boxes) is None


@pytest.mark.parametrize("form", FORMS)
def test_the_given_box_tells_the_form_of_one_row(form):
    row = written(walk(1), form)
    expected = None if form == "xywh" else form
    assert suspect_form(row, SIZE, walk(1)[0]) == expected
    if not form.startswith("normalised"):
        assert suspect_form(row, None, walk(1)[0]) == expected


def test_results_that_begin_with_the_given_box_are_right_whatever_follows():
    boxes = walk()
    boxes[1:] = [.2, .3, .5, .4]  # a tracker that collapsed
    assert suspect_form(boxes, SIZE, boxes[0]) is None
    corners = written(walk(start=(0, 0)), "xyxy")  # its first row is the same in both forms
    assert suspect_form(corners, SIZE, corners[0]) == "xyxy"


def test_only_rows_that_could_be_corners_need_the_size():
    assert could_be_corners(written(walk(), "xyxy")) and not could_be_corners(walk())


def test_real_sequences_raise_no_suspicion(shared_dir):
    """Of LaSOT, GOT-10k, OTB-100 and UAV123, in pictures that just hold their boxes; nearly all are told as corners."""
    found = total = 0
    for file in sorted((shared_dir / "results").glob("*/*_gt.npz")):
        with np.load(file) as data:
            offsets, everything = data["offsets"], data["boxes"].astype(float)
        for boxes in np.split(everything, offsets[1:-1]):
            size = np.nanmax(boxes[:, :2] + boxes[:, 2:], axis=0)
            assert suspect_form(boxes, size) is None
            found += suspect_form(written(boxes, "xyxy"), size) == "xyxy"
            total += 1
    assert total > 600 and found / total > 0.85
