"""The run-time tracker with a model whose maps are known."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lib.families.elimination import EliminationRules
from lib.models.base import Prediction
from lib.test.tracker import Tracker, checkpoint_path
from lib.utils.errors import UserError
from lib.utils.window import hann_window

SIZES = dict(search_size=256, search_factor=4.0, template_size=128, template_factor=2.0, stride=16,
             mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
GOLDEN = Path(__file__).parent / "golden"


class FixedModel:
    """Answers with given peaks {(row, column): score}, and one size and offset per cell; notes what it was given."""

    def __init__(self, peaks, sizes=(0.25, 0.25), offset=(0.0, 0.0), side=16):
        self.score = torch.full((1, 1, side, side), 1e-4)
        self.size = torch.tensor(sizes).view(1, 2, 1, 1).repeat(1, 1, side, side)
        self.offset = torch.tensor(offset).view(1, 2, 1, 1).repeat(1, 1, side, side)
        for (row, column), value in peaks.items():
            self.score[0, 0, row, column] = value
        self.calls = []

    def __call__(self, *inputs):
        self.calls.append(inputs)
        return Prediction(torch.zeros(1, 1, 4), self.score, self.size, self.offset)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)


def test_window_is_the_official_one():
    expected = np.load(GOLDEN / "compresstracker_256_4.npz")["hann16"].reshape(16, 16)
    assert np.abs(hann_window(16).numpy() - expected).max() < 1e-6


def test_box_is_decoded_and_mapped_back(image):
    tracker = Tracker(FixedModel({(8, 6): 0.9}, sizes=(0.2, 0.1), offset=(0.25, 0.5)), **SIZES)
    tracker.initialize(image, [140, 80, 40, 40])
    result = tracker.track(image)
    # the search crop has a side of 160 pixels around (160, 100): its corner is (80, 20)
    cx, cy = 80 + (6 + 0.25) / 16 * 160, 20 + (8 + 0.5) / 16 * 160
    assert result.box_xywh == pytest.approx([cx - 16, cy - 8, 32, 16], abs=1e-4)
    assert result.score == pytest.approx(0.9 * hann_window(16)[8, 6].item(), abs=1e-6)
    assert result.score_map.shape == (16, 16) and result.score_map.max() == pytest.approx(result.score)
    assert tracker.box_xywh == result.box_xywh


def test_next_search_starts_from_the_last_box(image):
    model = FixedModel({(8, 12): 0.9})
    tracker = Tracker(model, **SIZES, window=False)
    tracker.initialize(image, [100, 80, 40, 40])
    first, second = tracker.track(image).box_xywh, tracker.track(image).box_xywh
    # cell (8, 12) lies 4 cells of 10 pixels right of the crop's centre; the size of 0.25 * 160 stays
    assert first == pytest.approx([140, 80, 40, 40], abs=1e-4)
    assert second == pytest.approx([180, 80, 40, 40], abs=1e-4)
    assert all(torch.equal(call[0], model.calls[0][0]) for call in model.calls), "the template changed"
    assert not torch.equal(model.calls[0][1], model.calls[1][1])


@pytest.mark.parametrize(("window", "column"), [(True, 9), (False, 15)])
def test_window_prefers_the_middle(image, window, column):
    tracker = Tracker(FixedModel({(8, 15): 0.95, (8, 9): 0.6}), **SIZES, window=window)
    tracker.initialize(image, [140, 80, 40, 40])
    result = tracker.track(image)
    assert result.box_xywh[0] + 20 == pytest.approx(80 + column * 10, abs=1e-4)


def test_box_is_clipped_with_a_margin_of_ten(image):
    tracker = Tracker(FixedModel({(0, 0): 0.9}), **SIZES, window=False)
    tracker.initialize(image, [2, 2, 40, 40])
    x, y, w, h = tracker.track(image).box_xywh
    assert (x, y, w, h) == (0.0, 0.0, 10.0, 10.0)  # the raw box ended outside the top left corner

    tracker = Tracker(FixedModel({(8, 8): 0.9}, sizes=(1.0, 1.0)), **SIZES)
    tracker.initialize(image, [140, 80, 100, 100])
    assert tracker.track(image).box_xywh == [0.0, 0.0, 300.0, 200.0]


def test_head_without_score_map_gives_its_box(image):
    boxes = torch.tensor([[[0.5, 0.5, 0.25, 0.125]]])
    tracker = Tracker(lambda template, search: Prediction(boxes), **SIZES)
    tracker.initialize(image, [140, 80, 40, 40])
    result = tracker.track(image)
    assert result.box_xywh == pytest.approx([140, 90, 40, 20], abs=1e-4)
    assert math.isnan(result.score) and result.score_map is None


def test_inputs_are_normalised_crops(image):
    model = FixedModel({(8, 8): 0.9})
    tracker = Tracker(model, **SIZES)
    grey = np.full_like(image, 128)
    tracker.initialize(grey, [140, 80, 40, 40])
    tracker.track(grey)
    template, search = model.calls[0]
    assert template.shape == (1, 3, 128, 128) and search.shape == (1, 3, 256, 256)
    expected = (128 / 255 - torch.tensor(SIZES["mean"])) / torch.tensor(SIZES["std"])
    for crop in (template, search):
        middle = crop.shape[-1] // 2
        assert torch.allclose(crop[0, :, middle, middle], expected, atol=1e-5)


def test_elimination_gets_a_template_mask(image):
    model = FixedModel({(8, 8): 0.9})
    tracker = Tracker(model, **SIZES, rules=EliminationRules("CTR_POINT"))
    tracker.initialize(image, [140, 80, 40, 40])
    tracker.track(image)
    mask = model.calls[0][2]["template_mask"]
    assert mask.shape == (1, 64) and mask.dtype == torch.bool
    assert mask.nonzero().tolist() == [[0, 3 * 8 + 3]]

    tracker = Tracker(model, **SIZES, rules=EliminationRules("ALL"))
    tracker.initialize(image, [140, 80, 40, 40])
    tracker.track(image)
    assert len(model.calls[-1]) == 2


def test_module_is_put_in_eval_mode():
    module = torch.nn.BatchNorm2d(3)
    Tracker(module, **SIZES)
    assert not module.training


@pytest.mark.parametrize("bad", [
    np.zeros((10, 10), np.uint8), np.zeros((10, 10, 4), np.uint8), np.zeros((10, 10, 3), np.float32),
    np.zeros((0, 10, 3), np.uint8), [[1, 2, 3]], None])
def test_bad_frames_are_refused(image, bad):
    tracker = Tracker(FixedModel({(8, 8): 0.9}), **SIZES)
    with pytest.raises(UserError, match="frame"):
        tracker.initialize(bad, [1, 1, 4, 4])
    tracker.initialize(image, [10, 10, 40, 40])
    with pytest.raises(UserError, match="frame"):
        tracker.track(bad)


@pytest.mark.parametrize("bad", [
    [10, 10, 0, 5], [10, 10, 5, -1], [float("nan"), 1, 5, 5], [1, 1, float("inf"), 5], [1, 2, 3], [300, 10, 5, 5],
    [10, -20, 5, 20], ["a", 1, 2, 3], None])
def test_bad_boxes_are_refused(image, bad):
    tracker = Tracker(FixedModel({(8, 8): 0.9}), **SIZES)
    with pytest.raises(UserError, match="target box"):
        tracker.initialize(image, bad)


def test_track_needs_initialize(image):
    with pytest.raises(RuntimeError, match="before"):
        Tracker(FixedModel({(8, 8): 0.9}), **SIZES).track(image)


def test_no_targets_give_no_results(image):
    tracker = Tracker(lambda *crops: 1 / 0, **SIZES)
    assert tracker.step([], []) == tracker.find([], [], []) == []
    with pytest.raises(ValueError):
        tracker.step([image], [])


def test_model_that_does_not_fit_is_named(image):
    tracker = Tracker(FixedModel({(4, 4): 0.9}, side=8), **SIZES)
    tracker.initialize(image, [10, 10, 40, 40])
    with pytest.raises(UserError, match=r"\(8, 8\).*\(16, 16\)"):
        tracker.track(image)
    tracker = Tracker(FixedModel({(8, 8): 0.9}, sizes=(float("nan"), 0.1)), **SIZES)
    tracker.initialize(image, [10, 10, 40, 40])
    with pytest.raises(UserError, match="NaN"):
        tracker.track(image)


def test_checkpoint_names_are_the_official_ones(tmp_path):
    cfg = SimpleNamespace(script="ostrack", name="vitb_256", title="OSTrack", TEST=SimpleNamespace(EPOCH=300))
    folder = tmp_path / "checkpoints" / "train"
    assert checkpoint_path(cfg, None, tmp_path) == folder / "ostrack" / "vitb_256" / "OSTrack_ep0300.pth.tar"
    cfg.script, cfg.title = "compresstracker", "CompressTracker"
    assert checkpoint_path(cfg, 7, tmp_path).name == "CompressTracker_ep0007.pth.tar"
