"""Trackers and frames for the runner's tests; without torch, so that worker processes start fast."""

import os
import signal
import time
from types import SimpleNamespace

import numpy as np

from lib.utils.errors import UserError


class Frames:
    """`count` black frames without files; what `lib.utils.sequences.FrameSource` offers."""

    def __init__(self, count, broken=None, error=None):
        self.count, self.broken, self.error = count, broken, error
        self.closed = False

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.broken:
            raise self.error or UserError(f"cannot read frame {index}")
        return np.zeros((40, 60, 3), np.uint8)

    def path(self, index):
        return f"{index}.jpg"

    def close(self):
        self.closed = True


class Mover:
    """Moves its box by 1.3 pixels a frame; dies, fails or waits in the third frame when its name asks for it."""

    def __init__(self, device, log=None, act=None):
        self.device, self.act = device, act or {}
        if log is not None:
            (log / f"{os.getpid()}").write_text(device)

    def initialize(self, image, box):
        self.box = list(box)

    def track(self, image):
        self.box[0] += 1.3
        action = self.act.get(self.box[1])
        if action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "fail":
            raise ValueError("no such thing")
        if action == "wait":
            time.sleep(0.02)
        return SimpleNamespace(box_xywh=list(self.box), score=0.5, score_map=None)


def unbuildable(device):
    raise UserError("no checkpoint at nowhere")


def crashing(device):
    raise OSError("out of everything")
