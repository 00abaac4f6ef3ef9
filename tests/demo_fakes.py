"""What the demo's tests share: pictures of a moving square, and fakes of a tracker, a window and a camera."""

import threading
import time
from pathlib import Path

import numpy as np
import torch

from lib.families.rules import State
from lib.test.tracker.live import LiveTracker
from lib.test.tracker.tracker import Target, TrackResult, check_box

SIZE = (160, 120)
"""Width and height of the pictures."""
FRAMES = 8


def frame(index: int) -> np.ndarray:
    """A white square that moves 3 px per frame to the right, on grey."""
    image = np.full((SIZE[1], SIZE[0], 3), 80, np.uint8)
    image[40:60, 20 + 3 * index:40 + 3 * index] = 255
    return image


def box(index: int) -> list[float]:
    return [20.0 + 3 * index, 40.0, 20.0, 20.0]


class Brightest:
    """Finds the white square for every target: a run-time tracker without a network."""

    parts = None
    score = 0.75

    def start(self, image, box_xywh):
        return Target(check_box(box_xywh, *image.shape[:2]), State(torch.zeros(1), {}), torch.zeros(1))

    def step(self, images, targets):
        results = []
        for image, target in zip(images, targets, strict=True):
            rows, columns = np.nonzero(image[..., 0] > 200)
            target.box_xywh = [float(columns.min()), float(rows.min()), *target.box_xywh[2:]]
            results.append(TrackResult(list(target.box_xywh), self.score, np.eye(16, dtype=np.float32)))
        return results


def brightest(**options):
    return LiveTracker(Brightest(), **options)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


class FakeDisplay:
    """A window whose user draws the boxes and presses the keys given, some while no picture comes."""

    def __init__(self, boxes, keys="", silent_keys=""):
        self.boxes, self.keys, self.shown = list(boxes), list(keys), 0
        self.silent_keys = list(silent_keys)

    def select(self, image):
        return self.boxes.pop(0)

    def show(self, image):
        self.shown += 1
        return self.keys.pop(0) if self.keys else ""

    def refresh(self):
        return self.silent_keys.pop(0)


class FakeCapture:
    """cv2.VideoCapture of a live source that gives `FRAMES` frames at a pace and is then gone."""

    def __init__(self, number, *_, seconds=0.02):
        self.number, self.index, self.released, self.seconds = number, 0, False, seconds

    def isOpened(self):  # noqa: N802
        return self.number in (0, "rtsp://user:secret@host:554/street/1")

    def get(self, key):
        return 0.0

    def read(self):
        time.sleep(self.seconds)
        self.index += 1
        return (True, frame(self.index - 1)) if self.index <= FRAMES else (False, None)

    def release(self):
        self.released = True


class SilentCapture(FakeCapture):
    """A `FakeCapture` that is silent after two frames, until `wake` is set."""

    def __init__(self):
        super().__init__(0)
        self.wake = threading.Event()

    def read(self):
        if self.index == 2:
            self.wake.wait(5)
        return super().read()
