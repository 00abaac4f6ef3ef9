"""Several targets in one stream: equality with one by one, the lost flag, re-detection, frames of another size."""

import math

import numpy as np
import pytest
import torch
import trees
from tiny_models import scramble, tiny

from lib.families.build import build_for_test
from lib.models.base import Prediction
from lib.test.tracker import Tracker
from lib.test.tracker.live import LiveTracker
from lib.test.tracker.lost import LostFlag, LostRule
from lib.test.tracker.redetect import Redetection
from lib.utils.errors import UserError
from lib.utils.parts import PartTimes

BOXES = [trees.box(0), [50.0, 30.0, 20.0, 25.0], [5.0, 40.0, 30.0, 12.0]]


@pytest.fixture(scope="module")
def core():
    torch.manual_seed(0)
    cfg = tiny("compresstracker", MODEL__BACKBONE__DEPTH=12)
    return Tracker.from_model(scramble(build_for_test(cfg)).eval(), cfg)


def frames(number=12):
    return [trees.picture(i) for i in range(number)]


def test_one_target_is_the_plain_tracker(core):
    film = frames()
    core.initialize(film[0], BOXES[0])
    expected = [core.track(image) for image in film[1:]]
    live = LiveTracker(core)
    live.init(film[0], BOXES[0])
    for image, plain in zip(film[1:], expected, strict=True):
        box, score, _ = live.update(image)
        assert box == plain.box_xywh and score == plain.score
        assert np.array_equal(live.score_maps[0], plain.score_map)


def test_several_targets_are_those_of_one_by_one(core):
    film = frames()
    live = LiveTracker(core)
    live.init_all(film[0], BOXES)
    together = [live.update_all(image) for image in film[1:]]
    for number, start in enumerate(BOXES):
        live.init(film[0], start)
        for image, results in zip(film[1:], together, strict=True):
            alone = live.update(image)
            np.testing.assert_allclose(results[number].box, alone.box, rtol=0, atol=1e-3)
            assert results[number].score == pytest.approx(alone.score, abs=1e-5)


def test_all_targets_go_through_the_model_at_once(core):
    class Counting:
        def __init__(self, model):
            self.model, self.batches = model, []

        def __call__(self, template, search):
            self.batches.append((len(template), len(search)))
            return self.model(template, search)

    counting = Counting(core.model)
    tracker = Tracker(counting, search_size=core.search_size, search_factor=core.search_factor, stride=core.stride,
                      template_size=core.template_size, template_factor=core.template_factor, mean=core.mean,
                      std=core.std)
    live = LiveTracker(tracker)
    live.init_all(trees.picture(0), BOXES)
    live.update_all(trees.picture(1))
    assert counting.batches == [(3, 3)]


def test_one_target_can_begin_anew(core):
    live = LiveTracker(core)
    live.init_all(trees.picture(0), BOXES[:2])
    live.update_all(trees.picture(1))
    live.restart(1, trees.picture(1), BOXES[2])
    fresh = LiveTracker(core)
    fresh.init(trees.picture(1), BOXES[2])
    found, expected = live.update_all(trees.picture(2))[1], fresh.update(trees.picture(2))
    np.testing.assert_allclose(found.box, expected.box, rtol=0, atol=1e-3)


def test_wrong_use_is_named(core):
    live = LiveTracker(core)
    with pytest.raises(RuntimeError, match="call init before"):
        live.update(trees.picture(0))
    with pytest.raises(RuntimeError, match="before init"):
        live.update_all(trees.picture(0))
    with pytest.raises(UserError, match="no target"):
        live.init_all(trees.picture(0), [])
    for box, message in (([500, 40, 20, 20], "outside the frame of 96 x 64"), ([20, 40, 0, 20], "w > 0"),
                         ([0, 0, 20, 9e4], "2 times as large as the frame of 96 x 64")):
        with pytest.raises(UserError, match=message):
            live.init_all(trees.picture(0), [BOXES[0], box])
    live.init_all(trees.picture(0), BOXES)
    with pytest.raises(RuntimeError, match="there are 3"):
        live.update(trees.picture(1))
    with pytest.raises(UserError, match="uint8 RGB"):
        live.update_all(np.zeros((4, 4), np.uint8))


def test_parts_are_timed(core):
    core.parts = parts = PartTimes()
    core.initialize(trees.picture(0), BOXES[0])
    for image in frames(4)[1:]:
        core.track(image)
    core.parts = None
    assert list(parts.seconds) == ["crop", "network", "box"]
    assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in parts.seconds.values())
    with pytest.raises(ValueError), parts.measure("broken"):
        raise ValueError
    assert "broken" not in parts.seconds


# ---- the lost flag


def flags(scores, *rule):
    flag = LostFlag(LostRule(*rule))
    return "".join(".L"[flag.see(score)] for score in scores)


def test_lost_needs_frames_in_a_row_and_a_high_score_to_end():
    low, middle, high = 0.1, 0.4, 0.6
    assert flags([low, low, low, low], 0.3, 0.5, 3) == "..LL"
    assert flags([low, low, middle, low, low, low], 0.3, 0.5, 3) == ".....L", "the middle one starts the count anew"
    assert flags([low] * 3 + [middle, middle, high, low, low], 0.3, 0.5, 3) == "..LLL...", "hysteresis"
    assert flags([low, high], 0.3, 0.5, 1) == "L."
    assert flags([0.3, 0.3], 0.3, 0.3, 1) == "..", "the threshold itself is not below it"
    assert flags([math.nan] * 9, 0.3, 0.5, 1) == "." * 9, "a model without scores"


@pytest.mark.parametrize("rule", [(0.5, 0.4, 3), (-0.1, 0.4, 3), (0.3, 1.1, 3), (0.3, 0.5, 0), (math.nan, 0.5, 3)])
def test_rules_out_of_range(rule):
    with pytest.raises(UserError, match="lost rule"):
        LostRule(*rule)


# ---- re-detection, with a model that finds a bright square


class BrightModel:
    """Scores each cell of the search crop by its brightness; boxes of a quarter of the crop."""

    def __init__(self):
        self.batches = []

    def __call__(self, template, search):
        self.batches.append(len(search))
        score = torch.nn.functional.avg_pool2d(search[:, :1], 16).clamp(1e-4, 0.9)
        side = score.shape[-1]
        return Prediction(torch.zeros(len(search), 1, 4), score, torch.full((len(search), 2, side, side), 0.25),
                          torch.full((len(search), 2, side, side), 0.5))


def bright_tracker():
    return Tracker(BrightModel(), search_size=256, search_factor=4.0, template_size=128, template_factor=2.0, stride=16,
                   mean=(0, 0, 0), std=(1, 1, 1))


def square(x, y, size=20, shape=(240, 320)):
    image = np.zeros((*shape, 3), np.uint8)
    image[y:y + size, x:x + size] = 255
    return image


def run_jump(redetect):
    """A target that stands still, disappears for four frames and comes back 70 pixels to the right."""
    live = LiveTracker(bright_tracker(), LostRule(0.3, 0.4, 2), redetect)
    live.init(square(100, 100), [100, 100, 20, 20])
    film = [square(100, 100)] * 2 + [np.zeros((240, 320, 3), np.uint8)] * 4 + [square(170, 100)] * 3
    return live, [live.update(image) for image in film]


def test_a_target_that_jumps_is_found_only_with_redetection():
    live, plain = run_jump(None)
    assert [result.lost for result in plain] == [False] * 3 + [True] * 6
    assert max(live.tracker.model.batches) == 1
    live, wider = run_jump(Redetection(1, 0.6))
    assert [result.lost for result in wider] == [False] * 3 + [True] * 3 + [False] * 3
    assert wider[6].score >= 0.6 and wider[6].box[0] + wider[6].box[2] / 2 == pytest.approx(180, abs=6)
    assert live.score_maps[0].max() == pytest.approx(wider[-1].score)
    assert live.tracker.model.batches == [1] * 3 + [1, 9] * 4 + [1] * 2, "one batch more in each frame that is lost"
    assert wider[7].score > 0.5 and wider[7].box[0] == pytest.approx(170, abs=8), "tracked on from there"


def test_a_find_below_the_threshold_is_left():
    _, results = run_jump(Redetection(1, 0.95))
    assert results[-1].lost


def test_crops_of_all_lost_targets_are_one_batch():
    live = LiveTracker(bright_tracker(), LostRule(0.3, 0.4, 1), Redetection(1, 0.6))
    live.init_all(square(100, 100), [[100, 100, 20, 20], [40, 40, 10, 10], [2, 2, 20, 20]])
    live.update_all(np.zeros((240, 320, 3), np.uint8))
    assert live.tracker.model.batches == [3, 9 + 9 + 4], "the corner's crops outside the frame are left out"


def test_anchors_are_half_a_crop_apart_and_inside():
    anchors = np.array(Redetection(1).anchors([100, 100, 20, 20], 4.0, 240, 320))
    assert sorted(set(anchors[:, 0])) == sorted(set(anchors[:, 1])) == [60, 100, 140] and len(anchors) == 9
    assert len(Redetection(2).anchors([100, 100, 20, 20], 4.0, 240, 320)) == 25
    assert Redetection(1).anchors([400, 100, 20, 20], 4.0, 240, 320) == [[400, 100, 20, 20]]


@pytest.mark.parametrize("options", [(0, 0.5), (9, 0.5), (1, 1.5), (1, math.nan)])
def test_redetection_out_of_range(options):
    with pytest.raises(UserError, match="re-detection"):
        Redetection(*options)


# ---- frames of another size


def test_boxes_change_with_the_frame(caplog):
    live = LiveTracker(bright_tracker(), redetect=Redetection())
    live.init(square(100, 100), [100, 100, 20, 20])
    live.update(square(100, 100))
    before = live.update(square(102, 100)).box
    after = live.update(square(204, 200, 40, (480, 640))).box
    np.testing.assert_allclose(after, 2 * np.array(before), atol=12)
    assert "320 x 240 to 640 x 480" in caplog.text
    caplog.clear()
    live.update(square(204, 200, 40, (480, 640)))
    assert not caplog.text


def test_frames_of_another_shape_are_refused():
    live = LiveTracker(bright_tracker())
    live.init(square(100, 100), [100, 100, 20, 20])
    with pytest.raises(UserError, match="320 x 320 pixels and those before had 320 x 240: of another shape"):
        live.update(np.zeros((320, 320, 3), np.uint8))
    live.update(square(100, 100))
    live.init(np.zeros((320, 320, 3), np.uint8), [100, 100, 20, 20])
