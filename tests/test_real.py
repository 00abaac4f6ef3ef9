"""The tracker for real video that comes with the project: it is small, loads by its name, and follows its target."""

import numpy as np
import torch

from lib.quickstart.scene import Sequence
from lib.test.tracker.live import LiveTracker
from lib.utils.files import ROOT

WEIGHTS = ROOT / "pretrained_models" / "compresstracker_real.pth.tar"


def test_it_is_small():
    assert WEIGHTS.stat().st_size <= 20e6
    net = torch.load(WEIGHTS, weights_only=True)["net"]
    assert {value.dtype for value in net.values() if value.is_floating_point()} == {torch.float16}


def test_it_finds_its_target_in_the_next_frame():
    """In drawn scenes, of which it saw none in training."""
    tracker, errors = LiveTracker.from_pretrained("compresstracker_real", device="cpu"), []
    for index in range(6):
        frames = list(Sequence(7, "test", index, length=2, size=(320, 240)).frames())
        first, second = (np.ascontiguousarray(frame.image[..., ::-1]) for frame in frames)
        tracker.init(first, frames[0].box)
        (x, y, w, h), (u, v, a, b) = tracker.update(second).box, frames[1].box
        errors.append(np.hypot(x + w / 2 - u - a / 2, y + h / 2 - v - b / 2) / np.sqrt(a * b))
    assert np.median(errors) < 0.3
