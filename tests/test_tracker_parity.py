"""The tracker's run over the synthetic parity video equals the official one's (tests/golden)."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.families.build import build_student
from lib.models.checkpoint import slim_state_dict
from lib.test.tracker import Tracker
from lib.utils.crop import square_crop
from lib.utils.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
CONFIG = "compresstracker_vitb_256_4"
spec = importlib.util.spec_from_file_location("formula", GOLDEN / "formula.py")
formula = importlib.util.module_from_spec(spec)
spec.loader.exec_module(formula)


@pytest.fixture(scope="module")
def expected():
    with np.load(GOLDEN / "compresstracker_256_4.npz") as file:
        return {name: file[name] for name in ("track_boxes", "track_scores", "template_patch", "search_patch_1",
                                              "template_resize_factor")}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    """Built from a checkpoint file in the official student layout, where the official training leaves it."""
    model = build_student(load_config("compresstracker", CONFIG))
    state = {name: torch.from_numpy(formula.parameter(name, tuple(value.shape)))
             for name, value in slim_state_dict(model, student=True).items()}
    save_dir = tmp_path_factory.mktemp("output")
    folder = save_dir / "checkpoints" / "train" / "compresstracker" / CONFIG
    folder.mkdir(parents=True)
    torch.save({"net": state}, folder / "CompressTracker_ep0003.pth.tar")
    yield Tracker.from_config("compresstracker", CONFIG, epoch=3, save_dir=save_dir, device="cpu")
    (folder / "CompressTracker_ep0003.pth.tar").unlink()


def test_crops(expected):
    crop = square_crop(formula.frame(0), formula.ground_truth(0), 2.0, 128)
    assert crop.scale == pytest.approx(float(expected["template_resize_factor"]))
    for ours, theirs in ((crop.image, expected["template_patch"]),
                         (square_crop(formula.frame(1), formula.ground_truth(0), 4.0, 256).image,
                          expected["search_patch_1"])):
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_run(tracker, expected):
    tracker.initialize(formula.frame(0), formula.ground_truth(0))
    results = [tracker.track(formula.frame(i)) for i in range(1, len(expected["track_boxes"]))]
    boxes = np.array([result.box_xywh for result in results])
    np.testing.assert_allclose(boxes, expected["track_boxes"][1:], rtol=0, atol=1e-3)
    np.testing.assert_allclose([result.score for result in results], expected["track_scores"], rtol=0, atol=1e-4)


def test_missing_checkpoint_lists_the_others(tmp_path):
    folder = tmp_path / "checkpoints" / "train" / "compresstracker" / CONFIG
    with pytest.raises(UserError, match=r"CompressTracker_ep0009\.pth\.tar; train first"):
        Tracker.from_config("compresstracker", CONFIG, epoch=9, save_dir=tmp_path, device="cpu")
    folder.mkdir(parents=True)
    (folder / "CompressTracker_ep0300.pth.tar").touch()
    with pytest.raises(UserError, match=r"holds CompressTracker_ep0300\.pth\.tar"):
        Tracker.from_config("compresstracker", CONFIG, epoch=9, save_dir=tmp_path, device="cpu")
