"""Many sequences at once in one process: one batched pass of the model for the next frame of each."""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.errors import UserError
from .datasets import Sequence as TestSequence
from .readahead import BYTES_AHEAD, ReadAhead
from .single import REPORT_EVERY, Failure, Tracked, draw_frame, failure_of


class _Lane:
    """One sequence under way."""

    def __init__(self, sequence: TestSequence, read_ahead: int, budget: int):
        self.sequence = sequence
        self.reader = ReadAhead(sequence.frames, read_ahead, budget)
        self.images: Generator[np.ndarray, None, None] = iter(self.reader)
        self.image: np.ndarray | None = None
        self.target: Any = None
        self.boxes: list[Sequence[float]] = []
        self.seconds: list[float] = []
        self.reported = 0

    def add(self, box_xywh: Sequence[float], score: float | None, seconds: float, debug_dir: Path | None
            ) -> Failure | None:
        """Append the frame that was just tracked; the failure of a frame that cannot be drawn."""
        try:
            if debug_dir is not None:
                draw_frame(debug_dir, self.sequence, len(self.boxes), self.image, box_xywh, score)
        except UserError as error:
            return failure_of(self.sequence, error)
        self.boxes.append(box_xywh)
        self.seconds.append(seconds)
        return None

    def close(self) -> None:
        """Stop reading."""
        self.images.close()
        self.sequence.frames.close()


def track_in_lockstep(
    tracker: Any,
    sequences: Iterable[TestSequence],
    batch: int,
    debug_dir: Path | None,
    read_ahead: int,
    *,
    on_frames: Callable[[TestSequence, int], None],
    on_outcome: Callable[[TestSequence, Tracked | Failure], None],
) -> None:
    """Track `batch` sequences side by side; one that ends makes room for the next in the order given.

    The boxes are those of one sequence after the other within float rounding. The seconds of a frame are its share of
    the batch's.

    Args:
        tracker: with `start(image, box_xywh)` and `step(images, targets)`, as `Tracker` has.
        sequences: asked for the next one when there is room for it, so they may come in one by one.
        debug_dir, read_ahead: see `run_dataset`; the memory for frames read ahead is divided among the sequences.
        on_frames: told now and then of a sequence how many more frames are tracked.
        on_outcome: called with a sequence and its `Tracked` or `Failure`.

    Raises:
        UserError: the device's memory is too small for the batch.
    """
    waiting = iter(sequences)
    lanes: list[_Lane] = []
    last_report = time.monotonic()

    def report(lane: _Lane) -> None:
        on_frames(lane.sequence, len(lane.boxes) - lane.reported)
        lane.reported = len(lane.boxes)

    def leave(lane: _Lane, outcome: Tracked | Failure) -> None:
        if lane in lanes:
            lanes.remove(lane)
        lane.close()
        report(lane)
        on_outcome(lane.sequence, outcome)

    def advance(lane: _Lane) -> bool:
        """Read the lane's next frame; False when the lane is done, well or not."""
        try:
            lane.image = next(lane.images, None)
        except Exception as error:
            leave(lane, failure_of(lane.sequence, error))
            return False
        if lane.image is None:
            leave(lane, Tracked(np.asarray(lane.boxes, dtype=np.float64), lane.seconds, lane.reader.waited))
        return lane.image is not None

    def enter(sequence: TestSequence) -> None:
        """Start a sequence from the box of its first frame."""
        lane = _Lane(sequence, read_ahead, BYTES_AHEAD // batch)
        if not advance(lane):
            return
        try:
            start = time.perf_counter()
            box = sequence.first_box()
            lane.target = tracker.start(lane.image, box)
            failure = lane.add(box, None, time.perf_counter() - start, debug_dir)
        except Exception as error:
            failure = failure_of(sequence, error)
        if failure is not None:
            leave(lane, failure)
        else:
            lanes.append(lane)

    try:
        while True:
            while len(lanes) < batch and (sequence := next(waiting, None)) is not None:
                enter(sequence)
            if not lanes:
                return
            moving = [lane for lane in list(lanes) if advance(lane)]
            for lane, outcome in _step(tracker, moving, debug_dir):
                if outcome is not None:
                    leave(lane, outcome)
            if time.monotonic() - last_report >= REPORT_EVERY:
                last_report = time.monotonic()
                for lane in lanes:
                    report(lane)
    finally:
        for lane in lanes:
            lane.close()


def _step(tracker: Any, lanes: Sequence[_Lane], debug_dir: Path | None) -> list[tuple[_Lane, Failure | None]]:
    """Track one frame in each lane; each lane with its failure, if it has one.

    A batch that fails says nothing about whose fault it was and has moved no target, so each lane is then tried alone.
    """
    if not lanes:
        return []
    start = time.perf_counter()
    try:
        results = tracker.step([lane.image for lane in lanes], [lane.target for lane in lanes])
    except Exception as error:
        import torch  # only here, so that workers start fast whose tracker does without

        if isinstance(error, torch.OutOfMemoryError):
            raise UserError(f"the device's memory is too small for {len(lanes)} sequences at once; try a smaller "
                            "--batch") from error
        if len(lanes) == 1:
            return [(lanes[0], failure_of(lanes[0].sequence, error))]
        return [pair for lane in lanes for pair in _step(tracker, [lane], debug_dir)]
    share = (time.perf_counter() - start) / len(lanes)
    return [(lane, lane.add(result.box_xywh, result.score, share, debug_dir))
            for lane, result in zip(lanes, results, strict=True)]
