"""Trackers and frames for the runner's tests; without torch, so that worker processes start fast."""

import os
import signal
import struct
import sys
import time
from types import SimpleNamespace

import numpy as np

from lib.utils.errors import UserError


class Frames:
    """`count` black frames without files; what `lib.utils.frames.FrameSource` offers."""

    def __init__(self, count, broken=None, error=None, size=(40, 60)):
        self.count, self.broken, self.error, self.size = count, broken, error, size
        self.closed = False

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.broken:
            raise self.error or UserError(f"cannot read frame {index}")
        return np.zeros((*self.size, 3), np.uint8)

    def path(self, index):
        return f"{index}.jpg"

    def close(self):
        self.closed = True


class Mover:
    """Moves its box by 1.3 pixels a frame; `act` says for which y of the box it dies, fails or waits."""

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
        if action == "die within a message":
            tear(sys._getframe())
        if action == "fail":
            raise ValueError("no such thing")
        if action == "wait":
            time.sleep(0.02)
        return SimpleNamespace(box_xywh=list(self.box), score=0.5, score_map=None)


class Stepper:
    """Moves boxes by 1.3 pixels, any number at a time, and notes how many; a box at a y of `bad` fails its whole batch
    with `error`, one at a y of `dies` kills the process."""

    def __init__(self, device, bad=(), error=None, dies=()):
        self.bad, self.error, self.dies, self.batches = bad, error or ValueError("no such thing"), dies, []

    def start(self, image, box):
        return list(box)

    def step(self, images, targets):
        self.batches.append(len(targets))
        assert len(images) == len(targets)
        if any(target[1] in self.dies for target in targets):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(target[1] in self.bad for target in targets):
            raise self.error
        for target in targets:
            target[0] += 1.3
        return [SimpleNamespace(box_xywh=list(target), score=0.5) for target in targets]


def tear(frame):
    """Announce a long message on the worker's pipe, send its first byte, and die."""
    while "connection" not in frame.f_locals:
        frame = frame.f_back
    os.write(frame.f_locals["connection"].fileno(), struct.pack("!i", 1000) + b"x")
    os.kill(os.getpid(), signal.SIGKILL)


class Looker:
    """Puts its box where the mean colour of the frame says."""

    def __init__(self, device):
        pass

    def initialize(self, image, box):
        self.size = box[2:]

    def track(self, image):
        red, green = image[..., :2].mean(axis=(0, 1)).tolist()
        return SimpleNamespace(box_xywh=[red, green, *self.size], score=0.5, score_map=None)


def unbuildable(device):
    raise UserError("no checkpoint at nowhere")


def crashing(device):
    raise OSError("out of everything")
