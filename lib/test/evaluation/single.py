"""Track one sequence."""

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.errors import UserError
from .datasets import Sequence as TestSequence
from .readahead import FRAMES_AHEAD, ReadAhead
from .results import dataset_folder

REPORT_EVERY = 0.5
"""Seconds between a sequence's reports of its frames."""


@dataclass(frozen=True)
class Failure:
    """A sequence that could not be finished."""

    sequence: str
    message: str
    trace: str = ""
    """The traceback; empty when the message says all a user needs."""


@dataclass(frozen=True)
class Tracked:
    """A tracked sequence."""

    boxes_xywh: np.ndarray
    """(N, 4) pixels; row 0 is the given box."""
    seconds: list[float]
    """N; entry 0 is the initialisation. Reading the frames is not counted."""
    waited: float = 0.0
    """Seconds that the tracker had nothing to do but to wait for frames."""


def attempt(tracker: Any, sequence: TestSequence, debug_dir: Path | None, on_frames: Callable[[int], None],
            read_ahead: int = FRAMES_AHEAD) -> Tracked | Failure:
    """`track_sequence`, with an error turned into a `Failure`."""
    try:
        return track_sequence(tracker, sequence, debug_dir, on_frames, read_ahead)
    except Exception as error:
        return failure_of(sequence, error)
    finally:
        sequence.frames.close()


def failure_of(sequence: TestSequence, error: Exception) -> Failure:
    """The `Failure` of a sequence; with the traceback unless it is the user's."""
    if isinstance(error, UserError):
        return Failure(sequence.name, str(error))
    trace = "".join(traceback.format_exception(error))
    return Failure(sequence.name, f"{type(error).__name__}: {error}", trace)


def track_sequence(tracker: Any, sequence: TestSequence, debug_dir: Path | None = None,
                   on_frames: Callable[[int], None] = lambda frames: None, read_ahead: int = FRAMES_AHEAD) -> Tracked:
    """Track one sequence from the box of its first frame.

    Args:
        tracker: with `initialize(image, box_xywh)` and `track(image)`.
        debug_dir: where to leave drawn frames, in a folder of the sequence's name; None draws nothing.
        on_frames: told now and then how many more frames are tracked.
        read_ahead: most frames that are read while the tracker works, see `ReadAhead`; 0 for none.
    """
    boxes, seconds = [], []
    reported, last_report = 0, time.monotonic()
    reader = ReadAhead(sequence.frames, read_ahead)
    with closing(iter(reader)) as images:
        for number, image in enumerate(images):
            start = time.perf_counter()
            if number == 0:
                box, score = sequence.first_box(), None
                tracker.initialize(image, box)
            else:
                result = tracker.track(image)
                box, score = result.box_xywh, result.score
            seconds.append(time.perf_counter() - start)
            boxes.append(box)
            if debug_dir is not None:
                draw_frame(debug_dir, sequence, number, image, box, score)
            if time.monotonic() - last_report >= REPORT_EVERY:
                on_frames(len(boxes) - reported)
                reported, last_report = len(boxes), time.monotonic()
    on_frames(len(boxes) - reported)
    return Tracked(np.asarray(boxes, dtype=np.float64), seconds, reader.waited)


def draw_frame(debug_dir: Path, sequence: TestSequence, number: int, image: np.ndarray, box: Sequence[float],
               score: float | None) -> None:
    """Leave one frame with the tracked box and, where there is one, the true box."""
    from ...vis.draw import draw_boxes, save_image

    shown = {"tracker": box}
    if number < len(sequence.ground_truth):
        shown["ground truth"] = sequence.ground_truth[number].tolist()
    text = f"{sequence.name} {number}" if score is None else f"{sequence.name} {number} score {score:.2f}"
    folder = debug_dir / dataset_folder(sequence.dataset) / sequence.name
    save_image(folder / f"{number:06d}.jpg", draw_boxes(image, shown, text=text))
