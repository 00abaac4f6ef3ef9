"""Targets in a stream of frames: several at once, each with a score and a lost flag."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ...utils.errors import UserError
from .base import check_image
from .lost import LostFlag, LostRule
from .pretrained import load_tracker
from .redetect import Redetection
from .tracker import Target, Tracker

logger = logging.getLogger(__name__)

SAME_SHAPE = 0.02
"""Relative difference of width : height up to which a frame of another size shows the same scene."""


class Result(NamedTuple):
    """What the tracker says about one target in one frame."""

    box: list[float]
    """[x, y, w, h] in pixels of the frame, sub-pixel, clipped to the frame."""
    score: float
    """0..1; NaN for a model without scores."""
    lost: bool
    """Whether the target counts as lost (see `LostRule`); the box is then the best guess."""


@dataclass
class _Followed:
    """One target with its flag and the last box that it had while it was not lost."""

    target: Target
    flag: LostFlag
    sure_box: list[float]


class LiveTracker:
    """Follows targets from frame to frame; `compresstracker.Tracker` is this class.

    ::

        tracker = Tracker.from_pretrained("CompressTracker_ep0500.pth.tar")
        tracker.init(frame, [x, y, w, h])
        box, score, lost = tracker.update(next_frame)

    Frames are RGB uint8 (H, W, 3). All targets of a frame go through the model in one batch. When the frames change
    their size but not their shape, as a stream does that lowers its resolution, the boxes change with them.

    Args:
        tracker: the run-time tracker.
        lost: when a target counts as lost.
        redetect: how to look for a lost target in a wider area; None does not, and the boxes are those of `tracker`.

    Attributes:
        score_maps: of each target in the last frame, (S, S) float32; None for a head without one.
    """

    def __init__(self, tracker: Tracker, lost: LostRule | None = None, redetect: Redetection | None = None):
        if redetect is not None and not hasattr(tracker, "find"):
            raise UserError(f"{type(tracker).__name__} cannot look for a lost target elsewhere; leave re-detection out")
        self.tracker = tracker
        self.redetect = redetect
        self.score_maps: list[np.ndarray | None] = []
        self._rule = LostRule() if lost is None else lost
        self._followed: list[_Followed] = []
        self._size: tuple[int, int] | None = None

    @classmethod
    def from_pretrained(
        cls,
        path_or_config: str | Path,
        *,
        device: str | torch.device = "auto",
        config: str | None = None,
        save_dir: str | Path | None = None,
        backend: str | None = None,
        lost: LostRule | None = None,
        redetect: Redetection | None = None,
    ) -> "LiveTracker":
        """A tracker with trained weights.

        Args:
            path_or_config: a checkpoint file, a folder that tracking/export_model.py wrote, or a configuration whose
                weights lie where training leaves them: its name, script/name, or its yaml file.
            device: cpu, cuda, cuda:N or auto.
            config: the configuration of a checkpoint that holds none (the official ones do not): name, script/name or
                the path of a yaml file in a folder of the script's name.
            save_dir: where the weights of a configuration are looked for; None takes the environment settings'.
            backend: torch (the default) or fast for weights, see `Tracker.from_config`; for an exported folder see
                `Tracker.from_export`.
            lost, redetect: see the class.

        Raises:
            UserError: nothing is there, or it cannot be used; no such device.
        """
        tracker = load_tracker(path_or_config, device=device, config=config, save_dir=save_dir, backend=backend)
        return cls(tracker, lost, redetect)

    def init(self, frame: np.ndarray, box: Sequence[float]) -> None:
        """Follow one target and forget others.

        Args:
            frame: RGB uint8 (H, W, 3).
            box: [x, y, w, h] in pixels.

        Raises:
            UserError: the frame or the box is unusable.
        """
        self.init_all(frame, [box])

    def init_all(self, frame: np.ndarray, boxes: Sequence[Sequence[float]]) -> None:
        """Follow several targets and forget others.

        Raises:
            UserError: there is no box, or the frame or one of the boxes is unusable.
        """
        if not len(boxes):
            raise UserError("no target: give at least one box x, y, w, h in pixels")
        self._size = check_image(frame)
        self._followed = [self._follow(frame, box) for box in boxes]
        self.score_maps = [None] * len(boxes)

    def restart(self, index: int, frame: np.ndarray, box: Sequence[float]) -> None:
        """Begin anew with one of the targets, counted from 0; the others go on."""
        self._resize(frame)
        self._followed[index] = self._follow(frame, box)

    def update(self, frame: np.ndarray) -> Result:
        """Find the target of `init` in the next frame.

        Raises:
            UserError: the frame is unusable, or of another shape than those before.
            RuntimeError: there is not exactly one target.
        """
        if len(self._followed) != 1:
            raise RuntimeError(f"update needs one target and there are {len(self._followed)}; call init before, or "
                               "update_all for several")
        return self.update_all(frame)[0]

    def update_all(self, frame: np.ndarray) -> list[Result]:
        """Find all targets in the next frame, in the order of `init_all`.

        Raises:
            UserError: as `update`.
            RuntimeError: there is no target.
        """
        if not self._followed:
            raise RuntimeError("update called before init")
        self._resize(frame)
        targets = [followed.target for followed in self._followed]
        results = self.tracker.step([frame] * len(targets), targets)
        for followed, result in zip(self._followed, results, strict=True):
            if not followed.flag.see(result.score):
                followed.sure_box = list(result.box_xywh)
        if self.redetect is not None:
            self._look_wider(frame, self.redetect, results)
        self.score_maps = [result.score_map for result in results]
        return [Result(list(result.box_xywh), result.score, followed.flag.lost)
                for followed, result in zip(self._followed, results, strict=True)]

    def _follow(self, frame: np.ndarray, box: Sequence[float]) -> _Followed:
        target = self.tracker.start(frame, box)
        return _Followed(target, LostFlag(self._rule), list(target.box_xywh))

    def _look_wider(self, frame: np.ndarray, redetect: Redetection, results: list) -> None:
        """Look for the lost targets; one that is found takes its place in `results` and goes on from there."""
        lost = [index for index, followed in enumerate(self._followed) if followed.flag.lost]
        if not lost:
            return
        chosen = [self._followed[index] for index in lost]
        finds = redetect.look(self.tracker, frame, [followed.target for followed in chosen],
                              [followed.sure_box for followed in chosen])
        for index, followed, find in zip(lost, chosen, finds, strict=True):
            if find is not None:
                results[index] = find
                followed.target.box_xywh = list(find.box_xywh)
                followed.sure_box = list(find.box_xywh)
                followed.flag = LostFlag(self._rule)

    def _resize(self, frame: np.ndarray) -> None:
        """Take the boxes along when the frames have changed their size."""
        size = check_image(frame)
        if self._size is None or size == self._size:
            return
        (old_height, old_width), (height, width) = self._size, size
        down, right = height / old_height, width / old_width
        if abs(right / down - 1) > SAME_SHAPE:
            raise UserError(f"a frame has {width} x {height} pixels and those before had {old_width} x {old_height}: "
                            "of another shape, so the boxes cannot be taken along; give the targets' boxes anew")
        logger.warning("the frames changed from %d x %d to %d x %d pixels; the boxes change with them", old_width,
                       old_height, width, height)
        for followed in self._followed:
            for box in (followed.target.box_xywh, followed.sure_box):
                box[:] = [box[0] * right, box[1] * down, box[2] * right, box[3] * down]
        self._size = size
